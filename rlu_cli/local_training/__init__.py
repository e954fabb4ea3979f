"""How a client trained: its optimiser, its steps, the order of its batches."""
