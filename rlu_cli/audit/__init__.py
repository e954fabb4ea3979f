"""One case → one finding: run the attacks, diagnose, score, pool rounds, expected accuracy."""
