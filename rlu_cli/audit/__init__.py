"""One case → one finding: attacks, diagnostics, scores, joint estimate, expected accuracy."""
