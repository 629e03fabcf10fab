"""The event parser gives the same events however the stream is cut."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtests.stack import sse
from loadtests.stack.sse import EventParser, EventTooLargeError

STREAM = (
    'data: {"text": "é漢"}\r\n\r\n: a comment\ndata: one\ndata: two\n\n'
    "event: x\ndata:bare\r\rdata: [DONE]\n\n"
)
EVENTS = ['{"text": "é漢"}', "one\ntwo", "bare", "[DONE]"]


def parsed(chunks: list[bytes]) -> list[str]:
    parser = EventParser()
    return [event for chunk in chunks for event in parser.feed(chunk)]


def test_events_are_read_from_a_whole_stream():
    assert parsed([STREAM.encode()]) == EVENTS


@given(st.lists(st.integers(0, len(STREAM.encode())), max_size=12))
def test_chunk_borders_do_not_matter(borders):
    stream = STREAM.encode()
    cuts = [0, *sorted(borders), len(stream)]
    assert parsed([stream[start:end] for start, end in itertools.pairwise(cuts)]) == EVENTS


def test_an_event_without_its_blank_line_is_not_an_event():
    assert parsed([b"data: cut off\n"]) == []


def test_an_event_without_data_is_not_an_event():
    assert parsed([b"event: ping\n\n"]) == []


def test_an_endless_event_is_an_error(monkeypatch):
    monkeypatch.setattr(sse, "MAX_PENDING_BYTES", 10)
    with pytest.raises(EventTooLargeError):
        parsed([b"data: far too long"])
