"""How long texts are: distributions by name, in characters (about four and a half to a token in English)."""

import math
import random
from collections.abc import Callable, Mapping
from typing import Final

__all__ = ["LENGTHS", "Lengths", "LengthsError", "named"]

Lengths = Callable[[random.Random], int]


class LengthsError(ValueError):
    """No such distribution; the message says which there are."""


def _lognormal(median: int, spread: float, longest: int) -> Lengths:
    """Most texts near the median, a few far longer: how prompts and replies of chats are distributed."""
    return lambda draw: min(longest, max(1, round(draw.lognormvariate(math.log(median), spread))))


def _uniform(shortest: int, longest: int) -> Lengths:
    return lambda draw: draw.randint(shortest, longest)


LENGTHS: Final[Mapping[str, Lengths]] = {
    "question": _lognormal(140, 0.9, 8_000),
    "reply": _lognormal(700, 0.8, 8_000),
    "system": _uniform(1_500, 6_000),
    "shared-system": _uniform(12_000, 15_000),
    "document": _lognormal(36_000, 0.7, 400_000),
    "tool-output": _lognormal(1_200, 1.0, 40_000),
}


def named(name: str) -> Lengths:
    """A distribution of LENGTHS, or `fixed:N`, or `uniform:A:B`. Raises LengthsError."""
    kind, *numbers = name.split(":")
    if all(number.isdecimal() and int(number) > 0 for number in numbers):
        if kind == "fixed" and len(numbers) == 1:
            return _uniform(int(numbers[0]), int(numbers[0]))
        if kind == "uniform" and len(numbers) == 2 and int(numbers[0]) <= int(numbers[1]):
            return _uniform(int(numbers[0]), int(numbers[1]))
    if name not in LENGTHS:
        raise LengthsError(
            f"{name}: no distribution of lengths; take {', '.join(LENGTHS)}, fixed:N or uniform:A:B"
        )
    return LENGTHS[name]
