"""Simulated federations written to disk: real checkpoints with known label counts."""
