"""`python -m rlu_cli`."""

from rlu_cli.cli import main

main()
