"""The run in tables, and whether it holds."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tests.e2e_render.asked import Asked, Reply
from tests.e2e_render.comparison import Difference, differences
from tests.e2e_render.known import KNOWN, known

__all__ = ["REQUIRED", "Run", "compare"]

REQUIRED: Final = 500  # requests
SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class Run:
    """`unknown` are differences that no entry of the table explains; `explained` counts those of each."""

    asked: Sequence[Asked]
    with_ids: int
    unknown: Sequence[tuple[Asked, Difference]]
    explained: Counter[str]
    ids_differ: int
    statuses_differ: int

    @property
    def holds(self) -> bool:
        differ = self.ids_differ or self.statuses_differ
        return not self.unknown and not differ and len(self.asked) >= REQUIRED

    @property
    def summary(self) -> str:
        return (
            f"e2e-render: {len(self.asked)} requests (at least {REQUIRED}), {self.with_ids} answered with "
            f"ids: {self.ids_differ} with other ids, {self.statuses_differ} with another status, "
            f"{len(self.unknown)} unknown differences: "
            f"{'passed' if self.holds else 'FAILED'}"
        )

    def lines(self) -> Iterator[str]:
        kinds = Counter(each.kind for each in self.asked)
        yield "requests: " + ", ".join(f"{count} {kind}" for kind, count in kinds.items())
        yield "known differences:"
        for each in KNOWN:
            yield f"  {self.explained[each.name]:4} {each.name}: {each.reason}"
        for asked, difference in self.unknown[:SHOWN]:
            yield (
                f"UNKNOWN {asked.name}: {difference.field}: vLLM {_short(difference.theirs)}, "
                f"tokenext {_short(difference.ours)}"
            )


def compare(asked: Sequence[Asked], replies: Sequence[tuple[Reply, Reply]]) -> Run:
    """`replies`: vLLM's, then ours."""
    found = [
        (each, difference)
        for each, (theirs, ours) in zip(asked, replies, strict=True)
        for difference in differences(each, theirs, ours)
    ]
    reasons = [(each, difference, known(each, difference)) for each, difference in found]
    ids = {each.name for each, difference in found if difference.field in {"token_ids", "prompts"}}
    return Run(
        asked=asked,
        with_ids=sum(_has_ids(theirs) and _has_ids(ours) for theirs, ours in replies),
        unknown=[(each, difference) for each, difference, why in reasons if why is None],
        explained=Counter(why.name for _, _, why in reasons if why is not None),
        ids_differ=len(ids),
        statuses_differ=sum(difference.field == "status" for _, difference in found),
    )


def _has_ids(reply: Reply) -> bool:
    values = reply.value if isinstance(reply.value, list) else [reply.value]
    return bool(values) and all(
        isinstance(each, dict) and {"token_ids", "tokens"} & set(each) for each in values
    )


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 120 else f"{text[:117]}..."  # for a person to read
