import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from epp_adapter.response_body import MAX_DOCUMENT_BYTES, ModelNameRestorer, Usage, UsageReader

DOCUMENT = json.dumps(
    {
        "model": "served/1",
        "choices": [{"message": {"content": 'say "model": "served/1" and \\"model\\":\\"served/1\\"'}}],
        "nested": {"model": "served/1", "other": "served/1"},
    }
).encode()


def restored(pieces, served="served/1", asked="asked"):
    restorer = ModelNameRestorer(served, asked)
    return b"".join(
        restorer.feed(piece, end=number == len(pieces) - 1) for number, piece in enumerate(pieces)
    )


def cut(body, cuts):
    edges = [0, *sorted(cut % (len(body) + 1) for cut in cuts), len(body)]
    return [body[start:end] for start, end in itertools.pairwise(edges)]


def expected(document):
    replaced = json.loads(document)
    replaced["model"] = replaced["nested"]["model"] = "asked"
    return replaced


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_the_name_is_restored_wherever_the_pieces_are_cut_and_texts_stay(cuts):
    assert json.loads(restored(cut(DOCUMENT, cuts))) == expected(DOCUMENT)


@given(st.lists(st.integers(0, 10_000), max_size=12))
def test_in_events_too(cuts):
    events = b"".join(
        b'data: {"id":"1","model":"served/1","choices":[{"delta":{"content":"%d"}}]}\n\n' % number
        for number in range(5)
    )
    events += b"data: [DONE]\n\n"
    assert restored(cut(events, cuts)) == events.replace(b"served/1", b"asked")


@given(st.binary(max_size=200), st.lists(st.integers(0, 200), max_size=8))
def test_any_other_bytes_pass_unchanged(body, cuts):
    assert restored(cut(body, cuts)) == body


@pytest.mark.parametrize(
    "text",
    ['{"model":"x"}', '{"model"  :  "x"}', '{"model":\n"x"}', '{"model":"x","model":"x"}', '[{"model":"x"}]'],
)
@pytest.mark.parametrize("asked", ["y", 'a much longer name \u00fc"\\'])
def test_every_way_to_write_it_is_read_and_the_result_is_json(text, asked):
    for at in range(len(text)):
        result = restored([text[:at].encode(), text[at:].encode()], "x", asked)
        assert json.loads(result) == json.loads(text.replace('"x"', json.dumps(asked)))


def test_a_name_is_found_escaped_or_not():
    for ascii_only in (True, False):
        body = json.dumps({"model": "gr\u00fcn"}, ensure_ascii=ascii_only).encode()
        assert json.loads(restored([body], "gr\u00fcn")) == {"model": "asked"}


def test_longer_and_shorter_names_are_others():
    body = b'{"model":"served/11","a":{"model":"served/"}}'
    assert restored([body]) == body


def test_nothing_is_held_back_at_the_end_of_an_event():
    restorer = ModelNameRestorer("x", "y")
    assert restorer.feed(b'data: {"model":"x"}\n\n', end=False) == b'data: {"model":"y"}\n\n'


def test_what_is_held_back_is_bounded():
    restorer = ModelNameRestorer("x", "y")
    passed = restorer.feed(b'{"model"' + b" " * 100_000, end=False)
    assert len(passed) > 99_000


USAGE = {"prompt_tokens": 12, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 8}}


def usage_of(body, cuts=(), *, events=False):
    reader = UsageReader(events=events)
    pieces = cut(body, cuts)
    for number, piece in enumerate(pieces):
        reader.feed(piece, end=number == len(pieces) - 1)
    return reader.usage


CUTS = st.lists(st.integers(0, 10_000), max_size=10)


@given(CUTS)
def test_usage_is_read_from_a_document(cuts):
    body = json.dumps({"choices": [{"text": "x" * 300}], "usage": USAGE}).encode()
    assert usage_of(body, cuts) == Usage(12, 3, 8)


@given(CUTS, st.sampled_from([b"\n\n", b"\r\n\r\n"]))
def test_of_a_stream_the_last_usage_counts(cuts, end):
    events = [
        {"choices": [{"delta": {"content": '"usage"'}}], "usage": None},
        {"choices": [], "usage": {"prompt_tokens": 12, "completion_tokens": 1}},
        {"choices": [], "usage": USAGE},
    ]
    body = b"".join(b"data: " + json.dumps(event).encode() + end for event in events) + b"data: [DONE]" + end
    assert usage_of(body, cuts, events=True) == Usage(12, 3, 8)


def test_a_last_line_that_is_not_ended_counts_too():
    assert usage_of(b"data: " + json.dumps({"usage": USAGE}).encode(), events=True) == Usage(12, 3, 8)


@pytest.mark.parametrize(
    "body",
    [b"", b"text", b"{}", b'{"usage": 7}', b'{"usage": null}', b'["usage"]', b'{"usage": {}', b'\xff"usage"'],
)
def test_what_tells_no_usage_is_none(body):
    assert usage_of(body) is None
    assert usage_of(b"data: " + body + b"\n\n", events=True) is None


def test_odd_numbers_count_as_nothing():
    body = b'{"usage": {"prompt_tokens": -1, "completion_tokens": "3", "prompt_tokens_details": []}}'
    assert usage_of(body) == Usage(0, 0, None)


def test_what_is_too_long_is_not_kept():
    reader = UsageReader(events=True)
    reader.feed(b"data: " + b"x" * (MAX_DOCUMENT_BYTES + 1), end=False)
    reader.feed(b"yz\n\ndata: " + json.dumps({"usage": USAGE}).encode() + b"\n\n", end=True)
    assert reader.usage == Usage(12, 3, 8), "the next line is read again"
    document = UsageReader(events=False)
    for _ in range(3):
        document.feed(b"x" * (MAX_DOCUMENT_BYTES // 2), end=False)
    document.feed(b"", end=True)
    assert document.usage is None
