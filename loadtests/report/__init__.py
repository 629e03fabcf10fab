"""A run as one page to look at; `python -m loadtests.report --help`."""
