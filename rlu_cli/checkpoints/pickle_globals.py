"""What a pickle of plain tensors may name: everything else is refused before anything is loaded."""

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

# Only these may be called, and torch calls them itself. `bytearray` is left out on purpose: called
# with a number it reserves that much memory.
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

# These may be named, but not called.
NAMED = frozenset(STORAGES) | {
    f"torch.{name}" for name, value in vars(torch).items() if isinstance(value, torch.dtype)
}

# These build tensors that are not plain: what kind.
UNPLAIN: dict[str, str] = {
    "torch._utils._rebuild_qtensor": "quantised",
    "torch.QInt8Storage": "quantised",
    "torch.QInt32Storage": "quantised",
    "torch.QUInt8Storage": "quantised",
    "torch.QUInt2x4Storage": "quantised",
    "torch.QUInt4x2Storage": "quantised",
    "torch.per_tensor_affine": "quantised",
    "torch.per_tensor_symmetric": "quantised",
    "torch.per_channel_affine": "quantised",
    "torch.per_channel_symmetric": "quantised",
    "torch.per_channel_affine_float_qparams": "quantised",
    "torch._utils._rebuild_sparse_tensor": "sparse",
    "torch.serialization._get_layout": "sparse",
    "torch._utils._rebuild_meta_tensor_no_storage": "meta",
    "torch._utils._rebuild_nested_tensor": "nested",
}
