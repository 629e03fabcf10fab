"""The subcommands of `tokenext`. They and `__main__` are the only ones who read settings and wire."""
