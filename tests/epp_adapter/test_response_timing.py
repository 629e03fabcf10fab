"""What is told of a response's coming: sizes, the first token, gaps; and what cannot be known is not told."""

import pytest

from epp_adapter.response_timing import (
    GAP_BOUNDS,
    NOT_SEEN,
    Gaps,
    ResponseFacts,
    ResponseTiming,
    body_length,
    is_event_stream,
)
from extproc.events import Headers, ResponseStarted, StaticMetadata

EVENTS = {"content-type": "text/event-stream; charset=utf-8"}
WHOLE = {"content-type": "application/json", "content-length": "400"}


class Clock:
    def __init__(self) -> None:
        self.now = 50.0
        self.looks = 0

    def __call__(self) -> float:
        self.looks += 1
        return self.now


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def timing(clock):
    return ResponseTiming(clock.now, clock)


def started(headers, status=200, *, end=False) -> ResponseStarted:
    return ResponseStarted(status, Headers(headers), StaticMetadata(), end_of_stream=end)


def stream(timing, clock, *pieces, status=200):
    """Headers after a second, then each piece after so many seconds more."""
    clock.now += 1.0
    timing.start(started(EVENTS, status))
    for after, body in pieces:
        clock.now += after
        timing.piece(body)


def test_a_response_that_never_came_is_not_told_of(timing):
    assert timing.facts() is NOT_SEEN


def test_the_first_piece_of_a_stream_is_its_first_token_and_not_its_headers(timing, clock):
    stream(timing, clock, (0.5, b"data: 1\n\n"))
    assert timing.facts() == ResponseFacts(streamed=True, body_bytes=9, first_token_seconds=1.5)


def test_a_stream_of_which_only_the_headers_are_seen_has_no_first_token_and_no_size(timing, clock):
    stream(timing, clock)
    assert timing.facts() == ResponseFacts(streamed=True)


def test_gaps_are_counted_by_how_long_they_are(timing, clock):
    stream(timing, clock, (0.5, b"a"), (0.004, b"b"), (0.03, b"c"), (5.0, b"d"))
    gaps = timing.facts().gaps
    counted = {bound: count for bound, count in zip((*GAP_BOUNDS, None), gaps.counts, strict=True) if count}
    assert counted == {0.005: 1, 0.04: 1, None: 1}
    assert gaps.seconds == pytest.approx(5.034)


def test_a_stream_of_one_piece_has_no_gap(timing, clock):
    stream(timing, clock, (0.5, b"all of it"))
    assert timing.facts().gaps is None


def test_an_empty_piece_is_no_token(timing, clock):
    stream(timing, clock, (0.5, b""), (0.5, b"data"), (3.0, b""))
    assert timing.facts() == ResponseFacts(streamed=True, body_bytes=4, first_token_seconds=2.0)


def test_a_response_that_comes_whole_was_computed_when_its_headers_came(timing, clock):
    clock.now += 0.75
    timing.start(started(WHOLE))
    clock.now += 9.0
    timing.piece(b"x" * 400)
    assert timing.facts() == ResponseFacts(body_bytes=400, first_token_seconds=0.75)


def test_its_size_is_known_though_its_body_is_not_seen(timing):
    timing.start(started(WHOLE))
    assert timing.facts().body_bytes == 400


def test_a_response_without_a_length_is_timed_by_its_first_piece(timing, clock):
    timing.start(started({"content-type": "application/json"}))
    clock.now += 2.0
    timing.piece(b"{")
    clock.now += 2.0
    timing.piece(b"}")
    assert timing.facts() == ResponseFacts(body_bytes=2, first_token_seconds=2.0)


def test_a_response_of_headers_alone_has_a_body_of_no_bytes_and_no_token(timing):
    timing.start(started({}, end=True))
    assert timing.facts() == ResponseFacts(body_bytes=0)


@pytest.mark.parametrize("status", [0, 302, 400, 503])
def test_what_is_no_success_has_no_first_token(timing, clock, status):
    stream(timing, clock, (0.5, b"data: {}\n\n"), status=status)
    assert timing.facts().first_token_seconds is None
    assert timing.facts().body_bytes == 10


def test_a_piece_costs_one_look_at_the_clock_and_only_in_a_stream(timing, clock):
    stream(timing, clock, *[(0.01, b"data")] * 50)
    assert clock.looks == 50
    whole = ResponseTiming(clock.now, clock)
    whole.start(started(WHOLE))
    for _ in range(50):
        whole.piece(b"data")
    assert clock.looks == 51


def test_however_long_a_stream_is_what_is_kept_of_it_is_not(timing, clock):
    stream(timing, clock, *[(0.015, b"data")] * 10_000)
    assert timing.facts().gaps == Gaps((0, 0, 0, 9_999, *[0] * 12), pytest.approx(149.985))
    assert len(timing.facts().gaps.counts) == len(GAP_BOUNDS) + 1


@pytest.mark.parametrize("text", ["", "-1", "1e3", "0x10", " 12", "\u0663", "9" * 19])
def test_a_length_that_is_no_number_is_none(text):
    assert body_length(Headers({"content-length": text})) is None


def test_only_server_sent_events_are_a_stream():
    assert is_event_stream(Headers(EVENTS))
    assert not is_event_stream(Headers({"content-type": "application/json"}))
    assert not is_event_stream(Headers({}))
