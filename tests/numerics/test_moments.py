"""Moments per class: the factor stands for the covariance, which is never formed."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rlu_cli.numerics.moments import class_moments


@given(
    sizes=st.lists(st.integers(2, 12), min_size=2, max_size=5),
    scale=st.sampled_from([1e-3, 1.0, 50.0]),
    seed=st.integers(0, 2**31),
)
@settings(deadline=None, max_examples=40)
def test_mean_and_factor_are_those_of_each_class(sizes: list[int], scale: float, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    labels = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    logits = scale * torch.randn(len(labels), len(sizes), generator=generator).double()
    moments = class_moments(logits, labels, len(sizes))
    assert moments.images == max(sizes)
    for n, factor in enumerate(moments.factors):
        own = logits[labels == n]
        assert torch.allclose(moments.mean[n], own.mean(0), rtol=1e-12, atol=1e-12 * scale)
        covariance = torch.cov(own.T)
        assert torch.allclose(factor.T @ factor, covariance, rtol=1e-10, atol=1e-10 * scale**2)


def test_the_dtype_of_the_logits_is_kept() -> None:
    labels = torch.tensor([0, 0, 1, 1])
    for dtype in (torch.float32, torch.float64):
        moments = class_moments(torch.rand(4, 2, dtype=dtype), labels, 2)
        assert moments.mean.dtype == moments.factors[0].dtype == dtype
