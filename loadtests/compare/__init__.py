"""One workload against several targets in turn; `python -m loadtests.compare --help`."""
