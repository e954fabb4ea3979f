"""What two checkpoints and labelled images show: one file per observation."""
