"""Compares what we make of requests with what an engine makes of them, and keeps what differs."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, Final

from tokenizers import Tokenizer

from tests.parity.corpus.case import Case
from tests.parity.oracles import Answer
from tests.parity.ours import Result

__all__ = ["Difference", "Outcome", "compare", "keep_failures"]

_KEPT: Final = 200  # of each model and oracle
_SHOWN: Final = 160  # characters around the first difference


@dataclass(frozen=True, slots=True)
class Difference:
    """A promise that did not hold: ids said to be the engine's own, and are not; or a crash."""

    model: str
    oracle: str
    case: Case
    ours: tuple[int, ...]
    theirs: tuple[int, ...]
    crash: str = ""


@dataclass(slots=True)
class Outcome:
    """What became of the cases of one model at one oracle. Every case is in exactly one of the five.

    `equal` and `mismatches` are ids that we call exact; a crash of ours is a mismatch too. `refused`: ours
    are exact, but the engine refuses the request, with our ids as without. `not_exact` and `skipped` promise
    nothing; they are counted by reason.
    """

    model: str
    oracle: str
    equal: int = 0
    refused: int = 0
    mismatches: list[Difference] = field(default_factory=list)
    not_exact: Counter[str] = field(default_factory=Counter)
    skipped: Counter[str] = field(default_factory=Counter)
    #: How often ids that promise nothing were right all the same, and how often only the engine has ids.
    right_anyhow: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    #: Cases behind the counts above, for whoever wants to serve more of them: reason -> name of a case.
    examples: dict[str, str] = field(default_factory=dict)

    @property
    def cases(self) -> int:
        counted = self.equal + self.refused + len(self.mismatches)
        return counted + self.not_exact.total() + self.skipped.total()


def compare(
    model: str, oracle: str, cases: Sequence[Case], ours: Sequence[Result], theirs: Sequence[Answer]
) -> Outcome:
    outcome = Outcome(model, oracle)
    for case, result, answer in zip(cases, ours, theirs, strict=True):
        if result.crash:
            outcome.mismatches.append(Difference(model, oracle, case, (), answer.ids or (), result.crash))
        elif result.ids is None:
            outcome.skipped[result.reason] += 1
            if answer.ids is not None:
                outcome.missed[result.reason] += 1
                outcome.examples.setdefault(result.reason, case.name)
        elif not result.exact:
            outcome.not_exact[result.reason] += 1
            outcome.right_anyhow[result.reason] += result.ids == answer.ids
            outcome.examples.setdefault(result.reason, case.name)
        elif answer.ids is None:
            outcome.refused += 1
        elif result.ids == answer.ids:
            outcome.equal += 1
        else:
            outcome.mismatches.append(Difference(model, oracle, case, result.ids, answer.ids))
    return outcome


def keep_failures(folder: Path, outcomes: Sequence[Outcome], tokenizer_files: dict[str, Path]) -> int:
    """Write each difference to a file of its own, the shortest request first. What was there before goes."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    numbers = count(1)
    for outcome in outcomes:
        shortest = sorted(outcome.mismatches, key=lambda difference: len(difference.case.text))[:_KEPT]
        if not shortest:
            continue
        tokenizer = Tokenizer.from_file(str(tokenizer_files[outcome.model]))
        for difference in shortest:
            oracle = outcome.oracle.partition(" ")[0]
            path = folder / f"{next(numbers):04d}-{outcome.model}-{oracle}-{difference.case.name}.json"
            path.write_text(json.dumps(_shown(difference, tokenizer), indent=1, ensure_ascii=False), "utf-8")
    return next(numbers) - 1


def _shown(difference: Difference, tokenizer: Any) -> dict[str, Any]:
    ours, theirs = (
        tokenizer.decode(list(ids), skip_special_tokens=False) for ids in (difference.ours, difference.theirs)
    )
    at = next(
        (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(len(ours), len(theirs))
    )
    near = slice(max(0, at - _SHOWN), at + _SHOWN)
    return {
        "model": difference.model,
        "oracle": difference.oracle,
        "case": difference.case.name,
        "kind": difference.case.kind,
        "crash": difference.crash,
        "first_difference_at_character": at,
        "ours_near_it": ours[near],
        "theirs_near_it": theirs[near],
        "path": difference.case.path,
        "body": difference.case.body("MODEL").encode("utf-8", "backslashreplace").decode(),
        "our_ids": difference.ours[:2000],
        "their_ids": difference.theirs[:2000],
    }
