"""How much a chat template may do: steps, time, and the size of every value it makes.

A template is somebody else's program, and a thread that runs it cannot be killed. So three things hold for an
untrusted one (template_sandbox.py sees to it that they do):
- every loop iteration and every call is a step; a render has so many of them, and a deadline that is looked
  at on the way;
- no single operation makes a value larger than `max_chars`, so that none takes long;
- no list or object that a template builds has more in it than that, counted through to the leaves, so that
  printing one does not take long either.
What is left is the time between two steps: as long as one loop body, over values of bounded size.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

from markupsafe import Markup

__all__ = [
    "MAX_ITEMS",
    "UNBOUNDED_CLOCK",
    "Budget",
    "RenderBounds",
    "RenderLimitError",
    "RenderTimeError",
    "formatted_size",
]

Clock = Callable[[], float]


class RenderLimitError(Exception):
    """A template would have made something too large, or taken too many steps."""


class RenderTimeError(Exception):
    """A template was not done at its deadline."""


def UNBOUNDED_CLOCK() -> float:  # noqa: N802  # a constant that is a function
    """Stands still: the deadline never comes."""
    return 0.0


@dataclass(frozen=True, slots=True)
class RenderBounds:
    """`max_chars` bounds a prompt and every value on the way to it; `clock` gives seconds."""

    max_chars: int = 32 * 1024 * 1024
    max_steps: int = 5_000_000
    seconds: float = 1.0
    clock: Clock = UNBOUNDED_CLOCK


_STEPS_BETWEEN_LOOKS: Final = 16  # a power of two
_MAX_BITS: Final = 20_000  # of integers; ten times what Python is willing to print
MAX_ITEMS: Final = 1_000_000  # of lists made from text: each item is an object


class Budget:
    """What one render has left. Owned by the thread that renders."""

    __slots__ = ("_clock", "_deadline", "_left", "_max_chars", "_weights")

    def __init__(self, bounds: RenderBounds) -> None:
        self._max_chars = bounds.max_chars
        self._left = bounds.max_steps
        self._clock = bounds.clock
        self._deadline = bounds.clock() + bounds.seconds
        # Weight by identity, with the object itself, so that no other can take its identity meanwhile.
        self._weights: dict[int, tuple[int, object]] = {}

    def step(self) -> None:
        """Take a step. Raises RenderLimitError, RenderTimeError."""
        left = self._left = self._left - 1
        if not left % _STEPS_BETWEEN_LOOKS:
            self._look(left)

    def _look(self, left: int) -> None:
        if left < 0:
            raise RenderLimitError("too many steps")
        self.look()

    def look(self) -> None:
        """Look at the clock. Raises RenderTimeError."""
        if self._clock() > self._deadline:
            raise RenderTimeError("the deadline has passed")

    def each(self, items: Iterable[Any]) -> Iterator[Any]:
        """The items, a step for each. Every value in a `for` loop comes this way."""
        if type(items) is list or type(items) is tuple:
            return chain.from_iterable(self._batches(items))
        return self._each(items)

    def _batches(self, items: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """A list cannot change under a template, so that some of its items may be paid for at once."""
        for start in range(0, len(items), _STEPS_BETWEEN_LOOKS):
            batch = items[start : start + _STEPS_BETWEEN_LOOKS]
            self._left -= len(batch)
            self._look(self._left)
            yield batch

    def _each(self, items: Iterable[Any]) -> Iterator[Any]:
        for item in items:
            self.step()
            yield item

    def admit(self, size: int) -> None:
        """Raises RenderLimitError for a value of this size."""
        if size > self._max_chars:
            raise RenderLimitError("too large a value")

    def weigh(self, value: Any) -> int:
        """Characters and items in a value, counted through to the leaves, shared parts each time they appear.

        Each list and object is looked through once in a render. Raises RenderLimitError where it is too much.
        """
        kind = type(value)
        if kind is str:
            return len(value) + 1
        if kind is not list and kind is not dict and kind is not tuple:
            return 1
        known = self._weights.get(id(value))
        if known is not None:
            return known[0]
        weight = 1
        if kind is dict:
            for key, item in value.items():
                weight += self.weigh(key) + self.weigh(item)
        else:
            for item in value:
                weight += self.weigh(item)
        self.admit(weight)
        self._weights[id(value)] = (weight, value)
        return weight

    def add(self, *terms: Any) -> Any:
        """`a + b + c`."""
        size = 0
        for term in terms:
            if type(term) is not str:
                return self._add(terms)
            size += len(term)
        self.admit(size)
        return "".join(terms)

    def _add(self, terms: tuple[Any, ...]) -> Any:
        total = terms[0]
        for term in terms[1:]:
            if isinstance(total, str) and isinstance(term, str):
                # Markup escapes what is added to it.
                self.admit((len(total) + len(term)) * (5 if Markup in (type(total), type(term)) else 1))
            elif isinstance(total, list | tuple) and isinstance(term, list | tuple):
                self.admit(self.weigh(total) + self.weigh(term))
            total = total + term
        return total

    def concatenate(self, *terms: Any) -> str:
        """`a ~ b ~ c`."""
        texts = [term if type(term) is str else str(term) for term in terms]
        self.admit(sum(map(len, texts)))
        return "".join(texts)

    def multiply(self, left: Any, right: Any) -> Any:
        """`a * b`."""
        if isinstance(left, int) and isinstance(right, int):
            _admit_bits(left.bit_length() + right.bit_length())
        else:
            for value, times in ((left, right), (right, left)):
                if isinstance(value, str | list | tuple) and isinstance(times, int):
                    self.admit((self.weigh(value) + 1) * max(times, 0))
        return left * right

    def power(self, base: Any, exponent: Any) -> Any:
        """`a ** b`."""
        if isinstance(base, int) and isinstance(exponent, int):
            _admit_bits(base.bit_length() * max(exponent, 0))
        return base**exponent

    def remainder(self, left: Any, right: Any) -> Any:
        """`a % b`, which is formatting where a is text."""
        if isinstance(left, str):
            self.admit(formatted_size(left, "%", right if isinstance(right, tuple) else (right,), {}))
        return left % right


def _admit_bits(bits: int) -> None:
    if bits > _MAX_BITS:
        raise RenderLimitError("too large a number")


def formatted_size(pattern: str, marker: str, positional: Iterable[Any], named: Mapping[str, Any]) -> int:
    """An upper bound for the length of a formatted text, by `%` or by braces as `marker` says.

    A field is at most as long as the longest value, or the largest number that may be its width: one in the
    pattern, or one among the values where the pattern takes widths from there.
    """
    values = (*positional, *named.values())
    longest = max(map(_shown_size, values), default=0)
    widths = [min(int(digits[:12]), _HUGE) for digits in _DIGITS.findall(pattern)]
    if _TAKES_WIDTHS[marker].search(pattern.replace("{{", "")):
        widths += [min(abs(value), _HUGE) for value in values if isinstance(value, int)]
    return len(pattern) + pattern.count(marker) * max(longest, *widths, 0)


_HUGE: Final = 10**12
_DIGITS: Final = re.compile(r"[0-9]+")
_TAKES_WIDTHS: Final = {"%": re.compile(r"\*"), "{": re.compile(r"\{[^{}]*\{")}
_NUMBER_SIZE: Final = 400  # a float in full; integers have fewer digits than bits


def _shown_size(value: Any) -> int:
    if isinstance(value, str):
        return 10 * len(value) + 2  # as repr, every character escaped
    if isinstance(value, dict):
        return 2 + sum(_shown_size(key) + _shown_size(item) + 4 for key, item in value.items())
    if isinstance(value, list | tuple):
        return 2 + sum(_shown_size(item) + 2 for item in value)
    return max(_NUMBER_SIZE, value.bit_length()) if isinstance(value, int) else _NUMBER_SIZE
