"""What the tests saw, kept for the page: one JSON line for each fault, in the order of the tests."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

__all__ = ["Outcome", "append", "read"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """`during`: what clients saw of it. `slowest` and `back` are seconds: the longest answer, and how long
    after the fault was over all was well again; None where it never was otherwise. `counted`: metrics that
    moved.
    """

    fault: str
    during: str
    slowest: float
    back: float | None
    counted: str


def append(path: Path, outcome: Outcome) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(outcome)) + "\n")


def read(path: Path) -> list[Outcome]:
    return [Outcome(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]
