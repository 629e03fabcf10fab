"""Load for the local stack or for any gateway that speaks OpenAI's API; `python -m loadtests.load --help`."""
