"""`rlu`: what one federated-learning update gives away.

The package reads as the pipeline runs (imports go down this list only):

    cli, commands           wires the command line; prints and exits
    pipeline                one case → one finding
    simulator, reports      labelled federations on disk; findings → text
    observe                 two checkpoints + images → Evidence
    auxiliary, scoring, cases, settings
    attacks | schemes | checkpoints | models      families; they never import one another
    numerics, types, errors
"""

__version__ = "0.1.0"
