"""Globals that a pickle of plain tensors and arrays names; the machine knows no others."""

from __future__ import annotations

import torch

# Storage classes: element type.
_OF_STORAGE = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexDouble": torch.complex128,
    "ComplexFloat": torch.complex64,
}
STORAGES: dict[str, torch.dtype] = {
    **{f"{module}.{name}Storage": kind for name, kind in _OF_STORAGE.items()
       for module in ("torch", "torch.cuda")},
    "torch.storage.UntypedStorage": torch.uint8,
}  # fmt: skip

DTYPES: dict[str, torch.dtype] = {
    f"torch.{name}": value for name, value in vars(torch).items() if isinstance(value, torch.dtype)
}

# Those that make a tensor as a view of a storage: (storage, offset, shape, strides, …).
REBUILD = frozenset(
    f"torch._utils.{name}"
    for name in ("_rebuild_tensor", "_rebuild_tensor_v2", "_rebuild_tensor_v3")
)

# Globals of tensors that are not plain: the kind of tensor.
UNPLAIN: dict[str, str] = {
    "torch._utils._rebuild_qtensor": "a quantised tensor",
    "torch.QInt8Storage": "a quantised tensor",
    "torch.QInt32Storage": "a quantised tensor",
    "torch.QUInt8Storage": "a quantised tensor",
    "torch.QUInt2x4Storage": "a quantised tensor",
    "torch.QUInt4x2Storage": "a quantised tensor",
    "torch.per_tensor_affine": "a quantised tensor",
    "torch.per_tensor_symmetric": "a quantised tensor",
    "torch.per_channel_affine": "a quantised tensor",
    "torch.per_channel_symmetric": "a quantised tensor",
    "torch.per_channel_affine_float_qparams": "a quantised tensor",
    "torch._utils._rebuild_sparse_tensor": "a sparse tensor",
    "torch.serialization._get_layout": "a sparse tensor",
    "torch._utils._rebuild_meta_tensor_no_storage": "a tensor without data (meta)",
    "torch._utils._rebuild_nested_tensor": "a nested tensor",
}

# Classes and modules of numpy that its arrays name.
NUMPY_CLASSES = frozenset({"numpy.ndarray", "numpy.dtype"})
NUMPY_MODULES = ("numpy.core", "numpy._core")
