"""Client-side defences that reduce leakage: gradient noise, DP-SGD, top-k sparsification."""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

NOISE_ON = ("batch", "sample")


@dataclass(frozen=True)
class Defence:
    """Defences of every client; the default is none.

    noise     S, standard deviation of Gaussian noise on each coordinate of a gradient, 0 for none
    noise_on  "batch": on each step's mean gradient; "sample": on every sample's gradient, which
              leaves S/√|B| on the mean
    topk      share of the parameters whose update is sent, the largest by magnitude
    dp_noise  noise multiplier σ of DP-SGD
    dp_clip   C, norm to which DP-SGD clips each sample's gradient

    Paper note: section 4.10 and Table 6 do not say what the noise is added to; both
    interpretations are implemented.
    """

    noise: float = 0.0
    noise_on: str = NOISE_ON[0]
    topk: float | None = None
    dp_noise: float | None = None
    dp_clip: float | None = None

    def settings(self) -> dict[str, Any]:
        """The values that differ from the defaults."""
        default = asdict(Defence())
        return {name: v for name, v in asdict(self).items() if v != default[name]}

    def deviation(self, batch_size: int) -> float:
        """Standard deviation of the noise on a mean over `batch_size` gradients."""
        return self.noise / math.sqrt(batch_size) if self.noise_on == "sample" else self.noise

    def impossible(self) -> list[str]:
        """A sentence for each invalid value."""
        cases = {
            "noise must be a number from 0": not 0 <= self.noise < math.inf,
            f"noise-on must be one of {', '.join(NOISE_ON)}": self.noise_on not in NOISE_ON,
            "topk must be a share above 0, at most 1": not _within(self.topk, 1),
            "dp-noise must be a number above 0": not _within(self.dp_noise, sys.float_info.max),
            "dp-clip must be a number above 0": not _within(self.dp_clip, sys.float_info.max),
        }
        return [sentence for sentence, holds in cases.items() if holds]

    def contradictions(self, clip: float | None) -> list[str]:
        """A sentence for each contradiction between values; `clip` is that of local training."""
        private = self.dp_noise is not None
        cases = {
            "--dp-noise and --dp-clip go together": private != (self.dp_clip is not None),
            "--noise-on needs --noise": self.noise_on != NOISE_ON[0] and not self.noise,
            "DP-SGD clips and adds noise itself; leave out --clip and --noise": (
                private and (clip is not None or self.noise > 0)
            ),
        }
        return [sentence for sentence, holds in cases.items() if holds]


def add_noise(
    gradients: Sequence[Tensor], deviation: float, generator: torch.Generator
) -> list[Tensor]:
    """Gradients plus Gaussian noise, drawn on the CPU so that all devices agree."""
    return [
        g + deviation * torch.randn(g.shape, generator=generator, dtype=g.dtype).to(g.device)
        for g in gradients
    ]


def send_largest(start: Sequence[Tensor], end: Sequence[Tensor], share: float) -> list[Tensor]:
    """`end` at the coordinates with the largest updates, `start` everywhere else.

    share  of the coordinates of all tensors together that is sent, at least one coordinate
    """
    pairs = list(zip(start, end, strict=True))
    size = torch.cat([(after - before).abs().flatten() for before, after in pairs])
    kept = torch.zeros(len(size), dtype=torch.bool)
    kept[size.topk(max(1, round(share * len(size))), sorted=False).indices] = True
    masks = torch.split(kept, [tensor.numel() for tensor in end])
    return [
        torch.where(mask.view_as(after), after, before)
        for mask, (before, after) in zip(masks, pairs, strict=True)
    ]


def _within(value: float | None, most: float) -> bool:
    return value is None or 0 < value <= most
