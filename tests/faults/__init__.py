"""Faults on the real stack, under load; `python -m tests.faults --help`."""
