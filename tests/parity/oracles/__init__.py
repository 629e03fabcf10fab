"""What an engine itself would tokenize: the seam, and the engines that can be asked."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, Self

from tests.parity.corpus.case import Case
from tests.parity.models import ParityModel

__all__ = ["Answer", "Oracle", "OracleError"]


class OracleError(RuntimeError):
    """The oracle itself failed: it did not start, or went away. One line says what to look at."""


@dataclass(frozen=True, slots=True)
class Answer:
    """`ids` is None where the engine refuses the request; `detail` is then what it says."""

    ids: tuple[int, ...] | None
    detail: str = ""


class Oracle(Protocol):
    """A context manager that owns its processes from enter to exit."""

    @property
    def name(self) -> str: ...

    @property
    def profile(self) -> str:
        """The engine profile that must agree with it."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(self, *error: object) -> None: ...

    def answers(self, model: ParityModel, cases: Sequence[Case]) -> list[Answer]:
        """One answer for each case, in their order. Raises OracleError."""
        ...
