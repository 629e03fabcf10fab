"""Coverage-guided fuzzing of everything that reads what others send; `python -m tests.fuzz --help`."""
