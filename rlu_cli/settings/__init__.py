"""Settings with their sources: flag > RLU_* > rlu.toml beside the checkpoints > the run folder's >
the checkpoint > rlu.toml or [tool.rlu] upwards from the working directory > default.

What lies beside the evidence describes the evidence, wherever the user happens to stand.

A file beside what is under inspection is not the user: from there nothing that would run code,
write a file, lift a limit or reach outside its folder is taken.

A setting is one row of a table; options, help, completion, environment variables and errors are
made from it.
"""
