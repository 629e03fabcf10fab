"""Long mixed traffic of which every byte is checked; `python -m loadtests.soak --help`."""
