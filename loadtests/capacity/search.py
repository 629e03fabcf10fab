"""The search for the highest rate that is still carried. Pure: whoever measures tells what came of it."""

from dataclasses import dataclass

__all__ = ["Search"]


@dataclass(slots=True)
class Search:
    """Doubles from `start` until a rate is not carried, then halves the gap until it is within `precision`.

    `next_rate` is None when it is over. `best` is the highest rate that was carried, 0 where none was. Where
    already the first rate is too high, it searches below it, down to a sixteenth.
    """

    start: float
    precision: float = 0.1
    most: float = 20_000.0
    best: float = 0.0
    _failed: float | None = None

    @property
    def next_rate(self) -> float | None:
        if self._failed is None:
            return None if self.best >= self.most else min(self.most, 2 * self.best or self.start)
        if not self.best:
            lower = self._failed / 2
            return lower if lower >= self.start / 16 else None
        if self._failed <= self.best * (1 + self.precision):
            return None
        return (self.best + self._failed) / 2

    def tell(self, rate: float, *, carried: bool) -> None:
        """What came of `next_rate`."""
        if carried:
            self.best = max(self.best, rate)
        else:
            self._failed = rate if self._failed is None else min(self._failed, rate)
