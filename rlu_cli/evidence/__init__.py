"""Evidence from two checkpoints and labelled images: one file per observation."""
