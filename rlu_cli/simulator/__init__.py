"""A labelled federation written to disk: real checkpoints whose answers are known."""
