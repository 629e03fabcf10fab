"""The shared kernel: what `tokenext`, `epp_adapter` and programs of others must agree on.

IO is at its edges only: `server`, `tokenization_client`, `admin`, TLS, and what writes logs and traces. What
the session and the records are made of has no IO, clock, logger or await (pyproject.toml has the list).
"""
