import pytest

from extproc.token_metadata import TokenIds
from tokenext.parity import (
    Agreement,
    Finding,
    ProbeResult,
    Report,
    Standing,
    first_difference,
    handoff_allowed,
    judge,
    next_standing,
)

ONE, OTHER = TokenIds.pack([1, 2, 3]), TokenIds.pack([1, 9, 3])


def report(*agreements: Agreement, problem: str = "") -> Report:
    return Report(tuple(ProbeResult(number, "p", each) for number, each in enumerate(agreements, 1)), problem)


@pytest.mark.parametrize(
    ("ours", "exact", "expected"),
    [
        (ONE, True, Agreement.EQUAL),
        (OTHER, True, Agreement.MISMATCH),
        (OTHER, False, Agreement.INEXACT),
        (ONE, False, Agreement.INEXACT),
        (None, True, Agreement.DECLINED),
    ],
)
def test_only_what_we_promise_can_be_a_mismatch(ours, exact, expected):
    assert judge(ours, ONE, exact=exact) is expected


@pytest.mark.parametrize(
    ("other", "position"), [([1, 9, 3], 1), ([1, 2], 2), ([1, 2, 3, 4], 3), ([], 0), ([7, 2, 3], 0)]
)
def test_the_first_difference_is_a_position(other, position):
    assert first_difference(ONE, TokenIds.pack(other)) == position


@pytest.mark.parametrize(
    ("seen", "finding"),
    [
        (report(Agreement.EQUAL, Agreement.INEXACT, Agreement.REFUSED), Finding.CLEAN),
        (report(Agreement.EQUAL, Agreement.MISMATCH), Finding.MISMATCH),
        (report(Agreement.EQUAL, problem="gone"), Finding.INCONCLUSIVE),
        (report(Agreement.MISMATCH, problem="gone"), Finding.MISMATCH),
        (report(Agreement.REFUSED, Agreement.DECLINED, Agreement.NOT_ASKED), Finding.INCONCLUSIVE),
        (report(), Finding.INCONCLUSIVE),
    ],
)
def test_a_round_is_clean_if_it_is_whole_and_compared_something(seen, finding):
    assert seen.finding is finding


def test_the_smallest_mismatch_has_the_shortest_request():
    sizes = {1: 50, 2: 20, 3: 20, 4: 5}
    results = tuple(
        ProbeResult(number, "p", Agreement.EQUAL if number == 4 else Agreement.MISMATCH, request_bytes=size)
        for number, size in sizes.items()
    )
    smallest = Report(results).smallest_mismatch
    assert smallest is not None
    assert smallest.number == 2
    assert report(Agreement.EQUAL).smallest_mismatch is None


@pytest.mark.parametrize(
    ("now", "finding", "after", "allowed"),
    [
        (Standing.UNKNOWN, Finding.CLEAN, Standing.CLEAN, True),
        (Standing.UNKNOWN, Finding.MISMATCH, Standing.MISMATCH, False),
        (Standing.UNKNOWN, Finding.INCONCLUSIVE, Standing.UNKNOWN, True),
        (Standing.CLEAN, Finding.CLEAN, Standing.CLEAN, True),
        (Standing.CLEAN, Finding.MISMATCH, Standing.MISMATCH, False),
        (Standing.CLEAN, Finding.INCONCLUSIVE, Standing.CLEAN, True),
        (Standing.MISMATCH, Finding.CLEAN, Standing.CLEAN, True),
        (Standing.MISMATCH, Finding.MISMATCH, Standing.MISMATCH, False),
        (Standing.MISMATCH, Finding.INCONCLUSIVE, Standing.MISMATCH, False),
    ],
)
def test_a_mismatch_ends_handoff_and_only_a_clean_round_brings_it_back(now, finding, after, allowed):
    assert next_standing(now, finding) is after
    assert handoff_allowed(after) is allowed
