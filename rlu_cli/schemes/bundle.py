"""Several tensors that are added and scaled together, such as all parameters of a model."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from torch import Tensor


class Bundle:
    """A tuple of tensors with the operations that `recursion` needs: +, - and scaling.

    tensors  in the same order in all bundles that are combined
    """

    __slots__ = ("tensors",)

    def __init__(self, tensors: Iterable[Tensor]) -> None:
        self.tensors: Sequence[Tensor] = tuple(tensors)

    def __add__(self, other: Bundle) -> Bundle:
        return Bundle(a + b for a, b in zip(self.tensors, other.tensors, strict=True))

    def __sub__(self, other: Bundle) -> Bundle:
        return Bundle(a - b for a, b in zip(self.tensors, other.tensors, strict=True))

    def __mul__(self, factor: float) -> Bundle:
        return Bundle(a * factor for a in self.tensors)

    __rmul__ = __mul__
