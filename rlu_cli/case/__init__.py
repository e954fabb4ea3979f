"""Files and options → a `Case`: everything one attack needs, checked once."""
