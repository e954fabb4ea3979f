"""Globals allowed in a pickle of plain tensors; all others are refused before loading."""

from __future__ import annotations

import torch

# Storage classes: bytes of one element.
_ELEMENT_BYTES = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
    "ComplexDouble": 16,
    "ComplexFloat": 8,
}
STORAGES: dict[str, int] = {
    **{f"{module}.{name}Storage": size for name, size in _ELEMENT_BYTES.items()
       for module in ("torch", "torch.cuda")},
    "torch.storage.UntypedStorage": 1,
}  # fmt: skip

# Only these may be called, and torch calls them itself. `bytearray` is excluded on purpose: called
# with a number it allocates that much memory.
CALLED = frozenset(
    {
        "torch._utils._rebuild_tensor",
        "torch._utils._rebuild_tensor_v2",
        "torch._utils._rebuild_tensor_v3",
        "torch._utils._rebuild_parameter",
        "torch._utils._rebuild_parameter_with_state",
        "torch.Size",
        "torch.device",
        "collections.OrderedDict",
        "collections.Counter",
        "__builtin__.set",
        "builtins.set",
        "_codecs.encode",
    }
)

# Those that make a tensor as a view of a storage: (storage, offset, shape, strides, …).
REBUILD = frozenset(name for name in CALLED if name.startswith("torch._utils._rebuild_tensor"))

# Element types: bytes of one element.
DTYPES: dict[str, int] = {
    f"torch.{name}": value.itemsize
    for name, value in vars(torch).items()
    if isinstance(value, torch.dtype)
}

# These may be named, but not called.
NAMED = frozenset(STORAGES) | frozenset(DTYPES)

# Globals of tensors that are not plain: the kind of tensor.
UNPLAIN: dict[str, str] = {
    "torch._utils._rebuild_qtensor": "quantised tensors",
    "torch.QInt8Storage": "quantised tensors",
    "torch.QInt32Storage": "quantised tensors",
    "torch.QUInt8Storage": "quantised tensors",
    "torch.QUInt2x4Storage": "quantised tensors",
    "torch.QUInt4x2Storage": "quantised tensors",
    "torch.per_tensor_affine": "quantised tensors",
    "torch.per_tensor_symmetric": "quantised tensors",
    "torch.per_channel_affine": "quantised tensors",
    "torch.per_channel_symmetric": "quantised tensors",
    "torch.per_channel_affine_float_qparams": "quantised tensors",
    "torch._utils._rebuild_sparse_tensor": "sparse tensors",
    "torch.serialization._get_layout": "sparse tensors",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta tensors",
    "torch._utils._rebuild_nested_tensor": "nested tensors",
}
