"""What the user typed and gave → a `Case`: everything one attack needs, checked once."""
