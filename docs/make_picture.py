"""Draws docs/leak.svg, the picture at the top of the README, from two real runs on sample_data.

python docs/make_picture.py
"""

from __future__ import annotations

import json
from html import escape
from pathlib import Path

import rlu_cli

ROOT = Path(__file__).parents[1]
WIDTH, HEIGHT = 860, 330
LEFT, TOP, PLOT_W, PLOT_H, GAP = 40, 96, 370, 172, 50
TRUE, FOUND, INK, QUIET = "#b8c0cc", "#2563eb", "#111827", "#6b7280"
TITLE = "One model update reveals how many examples of each class it saw"
STYLE = f"""
  text {{ font-family: ui-sans-serif, system-ui, 'Segoe UI', Helvetica, Arial, sans-serif }}
  .title {{ font-size: 19px; font-weight: 600; fill: {INK} }}
  .panel {{ font-size: 14px; font-weight: 600; fill: {INK} }}
  .note {{ font-size: 12px; fill: {QUIET} }}
"""


def panel(folder: Path, heading: str, x: int) -> list[str]:
    """One run: true and recovered counts of each class as bars."""
    finding = rlu_cli.attack(folder / "g.pt", folder / "c3.pt", folder / "aux")
    report = finding.to_dict()
    counts = [row["count"] for row in report["result"]["counts"]]
    truth = _truth(folder)
    right = sum(map(min, counts, truth))
    total, floor = sum(truth), report["metrics"]["floor_iacc"]
    most, slot = max(*counts, *truth), PLOT_W / len(counts)
    drawn = [
        _text(x, TOP - 34, "panel", heading),
        _text(
            x,
            TOP - 16,
            "note",
            f"{right} of {total} labels recovered ({right / total:.0%}); "
            f"a uniform guess: {floor:.0%}",
        ),
    ]
    for n, (true, found) in enumerate(zip(truth, counts, strict=True)):
        left = x + n * slot
        drawn.append(_bar(left + 4, true / most, slot * 0.42, TRUE))
        drawn.append(_bar(left + 4 + slot * 0.42, found / most, slot * 0.42, FOUND))
        drawn.append(
            f'<text class="note" x="{left + slot / 2:.1f}" y="{TOP + PLOT_H + 17}" '
            f'text-anchor="middle">{escape(finding.classes[n])}</text>'
        )
    base = TOP + PLOT_H + 0.5
    drawn.append(f'<path d="M{x} {base}h{PLOT_W}" stroke="{QUIET}" stroke-width="1"/>')
    return drawn


def _truth(folder: Path) -> list[int]:
    counts: list[int] = json.loads((folder / "c3.truth.json").read_text("utf-8"))["counts"]
    return counts


def _bar(x: float, height: float, width: float, colour: str) -> str:
    tall = max(height * PLOT_H, 1.0)
    return (
        f'<rect x="{x:.1f}" y="{TOP + PLOT_H - tall:.1f}" width="{width:.1f}" '
        f'height="{tall:.1f}" fill="{colour}"/>'
    )


def _text(x: float, y: float, kind: str, text: str) -> str:
    return f'<text class="{kind}" x="{x}" y="{y}">{escape(text)}</text>'


def _legend() -> list[str]:
    y = HEIGHT - 22
    entries = ((LEFT, TRUE, "what the client trained on"), (LEFT + 210, FOUND, "what rlu recovers"))
    return [
        part
        for x, colour, text in entries
        for part in (
            f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>',
            _text(x + 18, y + 11, "note", text),
        )
    ] + [
        _text(LEFT + PLOT_W + GAP, y + 11, "note", "labels per class; sample_data of this project")
    ]


def picture() -> str:
    """The picture as SVG."""
    sample = ROOT / "sample_data"
    parts = [
        f"<style>{STYLE}</style>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" rx="10" fill="#ffffff"/>',
        _text(LEFT, 34, "title", TITLE),
        *panel(sample, "Untrained model", LEFT),
        *panel(sample / "trained", "Model at 78 % accuracy", LEFT + PLOT_W + GAP),
        *_legend(),
    ]
    opening = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
        f'width="{WIDTH}" height="{HEIGHT}" role="img" '
        'aria-label="Bars of true and recovered label counts for two models">'
    )
    return "\n".join([opening, *parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "leak.svg").write_text(picture(), encoding="utf-8")
