"""What a run must show. Bounds are relations within one run, so that no machine decides them."""

from collections.abc import Mapping
from dataclasses import dataclass

from loadtests.simulate.run import Outcome

__all__ = ["Bound", "check"]

# Who does not look at prefixes finds a system prompt where it happens to be, and a conversation's own turns
# once in as many tries as there are workers. Whoever follows them finds most of both. Measured: 0.32 to 0.45
# more.
BLIND = ("random", "round-robin")
HIT_RATE_MARGIN = 0.2
# Of what one endless cache for all would find; the rest is lost to full caches and given up for balance.
# Measured: Dynamo's router with its defaults 0.84, the own scheduler 0.98.
SHARE_OF_BEST = 0.75
# Prompt tokens that are not computed are time to the first token. Measured: 0.60 to 0.67 of random's median;
# the rest is room for a busy machine.
FIRST_TOKEN_RATIO = 0.9


@dataclass(frozen=True, slots=True)
class Bound:
    what: str
    value: float
    limit: float
    holds: bool


def check(outcomes: Mapping[str, Outcome], *, requests: int, best: float) -> list[Bound]:
    """One bound a line. `best` is the hit rate that is possible."""
    bounds = [
        _at_least(f"{name}: requests answered", len(outcome.samples), requests)
        for name, outcome in outcomes.items()
    ]
    for name in ("internal", "dynamo"):
        outcome = outcomes.get(name)
        if outcome is None:
            continue
        bounds.append(
            _at_least(f"{name}: hit rate by the best possible", outcome.hit_rate / best, SHARE_OF_BEST)
        )
        for other in BLIND:
            blind = outcomes.get(other)
            if blind is None:
                continue
            more = outcome.hit_rate - blind.hit_rate
            bounds.append(_at_least(f"{name}: hit rate above {other}", more, HIT_RATE_MARGIN))
            ratio = outcome.first_token_ms(0.5) / blind.first_token_ms(0.5)
            bounds.append(_at_most(f"{name}: first token by {other}, median", ratio, FIRST_TOKEN_RATIO))
    return bounds


def _at_least(what: str, value: float, limit: float) -> Bound:
    return Bound(f"{what} >= {limit:g}", value, limit, value >= limit)


def _at_most(what: str, value: float, limit: float) -> Bound:
    return Bound(f"{what} <= {limit:g}", value, limit, value <= limit)
