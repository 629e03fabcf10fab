"""Strategies: what picks an endpoint among the candidates, and the bookkeeping that a pick carries."""
