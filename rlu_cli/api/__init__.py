"""The Python API: the functions behind the commands, and what they return."""
