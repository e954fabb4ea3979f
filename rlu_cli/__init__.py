"""`rlu`: how many examples of each class a federated-learning update reveals.

The package reads as its pipeline runs: settings → case → evidence → attacks → audit → reports.
Every file and folder stands in one row of this map, and imports from lower rows only; those in one
row never import one another. (`tests/test_structure.py` reads the map and holds the rule.)

    __main__                       python -m rlu_cli
    cli                            the typer app, exit statuses, the one place that shows errors
    commands                       one command, one file; the only ones that print and exit
    reports experiments            a finding as text, one format a file; the paper's tables, figures
    audit                          one case → one finding: attack, diagnose, score, pool rounds
    evidence                       what both models and the images show, one observation a file
    case simulator                 what the user gave, checked once; labelled federations on disk
    local_training                 how a client trained: optimiser, steps, order of batches
    settings                       every setting: its parser, option, default; its value and source
    attacks schemes checkpoints models datasets        families: one method, format, … a file
    numerics hashing ledger        tensors in, tensors out; content hashes; resumable results
    types                          the values that pass between the steps
    errors                         every way a command can end
"""

__version__ = "0.1.0"
