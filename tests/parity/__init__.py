"""The measuring side of token fidelity: oracles, corpora, and `python -m tests.parity`.

Nothing here is imported by the services. What the oracles taught stands in RULES.md.
"""
