"""Memory of this process, as Linux counts it."""

from __future__ import annotations

from pathlib import Path


def memory(kind: str) -> int:
    """Bytes that this process has (VmRSS), or has had at most since the last reset (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(kind))


def reset_peak() -> bool:
    """Start VmHWM anew; whether that is possible here."""
    try:
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    except OSError:
        return False
    return True
