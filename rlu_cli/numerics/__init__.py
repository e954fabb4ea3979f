"""Pure numerics: tensors in, tensors out; device and dtype follow the inputs."""
