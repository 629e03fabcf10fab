"""What came of an overload, and whether it is what tokenext promises. Pure."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from loadtests.bench.results import Ratio
from loadtests.load.results import percentile
from loadtests.overload.client import UNANSWERED, Answer
from tokenext.declined import SkipReason
from tokenext.render_api.errors import of_declined

__all__ = ["TOO_MANY_OPEN", "Overload", "bounds", "goodput", "lateness", "summed_up"]

TOO_MANY_OPEN = "too_many_open"  # over http.max_requests; tokenext_http_requests_refused_total
# What tokenext's refusals say, by what its metrics call them.
_REASONS: Mapping[str, str] = {
    of_declined(reason).refusal.message: reason.value
    for reason in SkipReason
    if of_declined(reason).refusal.retry
}


@dataclass(frozen=True, slots=True)
class Overload:
    """`answers` to `times` the `capacity`, in requests a second, for `seconds`. `counted` are refusals by
    reason, and `tokenized` is how many were not refused, as tokenext's metrics say. `latest` is by when a
    client must have its answer: the deadline and what is allowed for the client itself.
    """

    capacity: float
    times: float
    seconds: float
    latest: float
    answers: Sequence[Answer]
    counted: Mapping[str, int]
    tokenized: int


def goodput(answers: Sequence[Answer], seconds: float) -> float:
    """Answers with ids, a second."""
    return sum(each.status == 200 for each in answers) / seconds


def lateness(answers: Sequence[Answer]) -> float:
    """Of the client itself: for how long at most 99 of 100 requests were due and not begun."""
    return percentile(sorted(each.late for each in answers), 99) or 0.0


def refusals(answers: Sequence[Answer]) -> dict[str, int]:
    """503s with Retry-After, by tokenext's own words for their reasons."""
    refused = (each for each in answers if each.status == 503 and each.retry_after)
    return dict(Counter(_reason(each.body) for each in refused))


def _reason(body: bytes) -> str:
    try:
        message = json.loads(body)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return "unreadable"
    return _REASONS.get(message, TOO_MANY_OPEN)


def bounds(seen: Overload, least_goodput: float) -> dict[str, Ratio]:
    """Each promise as a figure and its bound."""
    refused = refusals(seen.answers)
    good = sum(each.status == 200 for each in seen.answers)
    unanswered = sum(each.status == UNANSWERED for each in seen.answers)
    reasons = refused.keys() | seen.counted.keys()
    uncounted = sum(abs(refused.get(each, 0) - seen.counted.get(each, 0)) for each in reasons)
    none = {"must": 0, "aim": 0, "better": "lower", "unit": ""}
    share = goodput(seen.answers, seen.seconds) / seen.capacity if seen.capacity else 0.0
    return {
        "requests without an answer": Ratio(unanswered, **none),
        "answers that are neither 200 nor 503 with Retry-After": Ratio(
            len(seen.answers) - good - unanswered - sum(refused.values()), **none
        ),
        f"answers later than {seen.latest:g} s": Ratio(
            sum(each.status != UNANSWERED and each.seconds > seen.latest for each in seen.answers), **none
        ),
        "503s by which the client's count and the metrics differ": Ratio(uncounted, **none),
        "200s by which the client's count and the metrics differ": Ratio(abs(good - seen.tokenized), **none),
        "answers with ids, by what the process can do": Ratio(share, least_goodput, 0.8, "higher"),
    }


def figures(seen: Overload) -> dict[str, object]:
    """For the kept document."""
    told: dict[str, object] = {
        "capacity_per_second": round(seen.capacity, 1),
        "offered_per_second": round(seen.capacity * seen.times, 1),
        "seconds": seen.seconds,
        "answers": dict(sorted(Counter(each.status for each in seen.answers).items())),
        "refused": refusals(seen.answers),
        "counted": dict(seen.counted),
        "answers_with_ids_per_second": round(goodput(seen.answers, seen.seconds), 1),
        "client_late_p99_ms": round(lateness(seen.answers) * 1e3, 1),
    }
    for status in (200, 503):
        times = sorted(each.seconds for each in seen.answers if each.status == status)
        for percent in (50, 99, 100):
            value = percentile(times, percent)
            told[f"p{percent}_ms_of_{status}"] = None if value is None else round(value * 1e3, 1)
    return told


def summed_up(seen: Overload, missed: Sequence[str]) -> str:
    """One line."""
    by_status = Counter(each.status for each in seen.answers)
    refused = ", ".join(f"{count:,} {reason}" for reason, count in sorted(refusals(seen.answers).items()))
    latest = max((each.seconds for each in seen.answers), default=0.0)
    share = goodput(seen.answers, seen.seconds) / seen.capacity if seen.capacity else 0.0
    others = sum(count for status, count in by_status.items() if status not in {200, 503, UNANSWERED})
    verdict = f"MISSED: {', '.join(missed)}" if missed else "ok"
    return (
        f"overload: {verdict}: {seen.capacity * seen.times:.0f}/s offered for {seen.seconds:g} s where "
        f"{seen.capacity:.0f}/s can be done: {by_status[200]:,} x 200 ({share:.0%} of capacity), "
        f"{by_status[503]:,} x 503 ({refused or 'none'}), {others} others, {by_status[UNANSWERED]} without "
        f"an answer, the latest answer after {latest:.2f} s of {seen.latest:g} s"
    )
