"""`rlu`: what one federated-learning update gives away.

The package reads as the pipeline runs (imports go down this list only):

    cli, commands                the command line; the only ones that print and exit
    reports                      a finding → text
    experiments                  the paper's tables and figures
    rounds                       the client's other rounds → one joint estimate
    pipeline, simulator          one case → one finding; labelled federations on disk
    diagnostics                  figures that need no truth
    cases                        flags and files → a case
    matching, line, virtual      which architecture fits; the line between both; virtual clients
    observe                      two checkpoints + images → evidence
    auxiliary, history, training, batches, batch_statistics, counters
    steps
    settings, scoring, truth
    attacks | schemes | checkpoints | models | datasets      families; none imports another
    numerics, normalisation, hashing
    types, errors
"""

__version__ = "0.1.0"
