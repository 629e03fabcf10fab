"""Parity with a running engine: what one probe shows, what a round of probes means, and what follows from it.

A round sends probes to the engine and compares its ids with ours. Only what we call exact can be a mismatch:
nothing else would ever be handed over.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from extproc.token_metadata import TokenIds

__all__ = [
    "Agreement",
    "Finding",
    "OracleKind",
    "ParityRecord",
    "ProbeResult",
    "Report",
    "Standing",
    "Verification",
    "first_difference",
    "handoff_allowed",
    "judge",
    "next_standing",
]


class OracleKind(StrEnum):
    """Which engine is asked, hence in which way."""

    DYNAMO = "dynamo"
    VLLM = "vllm"


@dataclass(frozen=True, slots=True)
class Verification:
    """A model's engine and when it is asked. `every_seconds` None: only at start and after a reload.

    `engine` is a URL; `engine_model` is the name the engine knows the model by.
    """

    engine: str
    kind: OracleKind
    engine_model: str
    every_seconds: float | None
    at_start: bool


class Agreement(StrEnum):
    """What one probe showed."""

    EQUAL = "equal"  # exact by us, and the engine's very ids
    MISMATCH = "mismatch"  # exact by us, and other ids by the engine
    INEXACT = "inexact"  # we promise nothing, whatever the ids
    DECLINED = "declined"  # we do not tokenize it
    REFUSED = "refused"  # the engine answers the request with an error of its own
    NOT_ASKED = "not asked"  # the engine has no way to show its ids for such a request


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """`detail` is a reason from an enum or a status; `ours` and `theirs` are kept for a mismatch only."""

    number: int
    name: str
    agreement: Agreement
    detail: str = ""
    request_bytes: int = 0
    ours: TokenIds | None = None
    theirs: TokenIds | None = None


def judge(ours: TokenIds | None, theirs: TokenIds, *, exact: bool) -> Agreement:
    """Compare the ids of one request; `ours` is None where we do not tokenize it."""
    if ours is None:
        return Agreement.DECLINED
    if not exact:
        return Agreement.INEXACT
    return Agreement.EQUAL if ours == theirs else Agreement.MISMATCH


def first_difference(ours: TokenIds, theirs: TokenIds) -> int:
    """The first position at which two unequal lists differ; the shorter one's length where it is a prefix."""
    pairs = zip(ours.as_array(), theirs.as_array(), strict=False)
    return next(
        (position for position, (one, other) in enumerate(pairs) if one != other),
        min(len(ours), len(theirs)),
    )


class Finding(StrEnum):
    """What a round means."""

    CLEAN = "clean"
    MISMATCH = "mismatch"
    INCONCLUSIVE = "inconclusive"  # the engine could not be asked: nothing was learnt


@dataclass(frozen=True, slots=True)
class Report:
    """A round. `problem` says why it ended early, empty where every probe was asked."""

    results: tuple[ProbeResult, ...]
    problem: str = ""

    @property
    def finding(self) -> Finding:
        """One mismatch counts, however the round ended; a clean round is whole and has compared something."""
        seen = {result.agreement for result in self.results}
        if Agreement.MISMATCH in seen:
            return Finding.MISMATCH
        if self.problem or Agreement.EQUAL not in seen:
            return Finding.INCONCLUSIVE
        return Finding.CLEAN

    @property
    def smallest_mismatch(self) -> ProbeResult | None:
        """The mismatch with the shortest request: the easiest to look into."""
        mismatches = [result for result in self.results if result.agreement is Agreement.MISMATCH]
        return min(mismatches, key=lambda result: (result.request_bytes, result.number), default=None)

    def count(self, agreement: Agreement) -> int:
        return sum(result.agreement is agreement for result in self.results)


class Standing(StrEnum):
    """What is known of a model's parity with its engine."""

    UNKNOWN = "unknown"
    CLEAN = "clean"
    MISMATCH = "mismatch"


# A round that learns nothing changes nothing: it neither proves a fault nor heals one.
_NEXT: Final[Mapping[Finding, Standing | None]] = {
    Finding.CLEAN: Standing.CLEAN,
    Finding.MISMATCH: Standing.MISMATCH,
    Finding.INCONCLUSIVE: None,
}


def next_standing(now: Standing, finding: Finding) -> Standing:
    """The standing after a round."""
    return _NEXT[finding] or now


def handoff_allowed(standing: Standing) -> bool:
    """Whether the engine may be given ids. An engine that was never reached gives no reason to doubt them."""
    return standing is not Standing.MISMATCH


@dataclass(frozen=True, slots=True)
class ParityRecord:
    """The fact that a round leaves behind; holds no content. `before` is the standing before the round."""

    model: str
    before: Standing
    standing: Standing
    report: Report
