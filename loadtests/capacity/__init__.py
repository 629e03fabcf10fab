"""The highest rate that the chain carries; `python -m loadtests.capacity --help`."""
