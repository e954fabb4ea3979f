"""One command, one file: options in, a call into the package, a report out."""
