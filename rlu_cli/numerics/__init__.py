"""Pure numerics: tensors in, tensors out; no files, no settings, no choice of device."""
