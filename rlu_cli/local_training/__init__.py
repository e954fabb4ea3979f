"""A client's local training: optimiser, step plan and batch order."""
