"""Traces: what had been asked before is asked in the same words, at the time the trace says."""

import json

import pytest

from loadtests.load import corpus, trace
from loadtests.load.trace import BLOCK_TOKENS, Entry, TraceError

OWN = corpus.own()


def line(**changes) -> str:
    fields = {"timestamp": 0, "input_length": 700, "output_length": 9, "hash_ids": [4, 5]}
    return json.dumps({**fields, **changes})


def text(ask) -> str:
    return ask.body["messages"][0]["content"]


def replayed(*entries: Entry, **options):
    return list(trace.asks(entries, OWN, seed=1, **options))


def test_a_trace_is_read_line_by_line_and_fields_of_others_are_passed_over(tmp_path):
    path = tmp_path / "trace.jsonl"
    path.write_text(f"{line(type='text')}\n\n{line(timestamp=12.5)}\n")
    assert trace.read(path) == (Entry(0, 700, 9, (4, 5)), Entry(12.5, 700, 9, (4, 5)))


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        ("", "has no line"),
        (f"{line()}\n{{", "line 2: "),
        (line(hash_ids=["a"]), "line 1: .*hash_ids"),
        (line(input_length=0), "line 1: .*input_length"),
        (line(hash_ids=[4]), "line 1: 700 tokens are 2 blocks of 512, and hash_ids has 1"),
        (f"{line(timestamp=5)}\n{line(timestamp=4)}", "line 2: its timestamp is before"),
    ],
)
def test_what_cannot_be_replayed_is_named_by_file_and_line(tmp_path, lines, says):
    path = tmp_path / "bad.jsonl"
    path.write_text(lines)
    with pytest.raises(TraceError, match=rf"bad\.jsonl: {says}"):
        trace.read(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(TraceError, match=r"nothing\.jsonl: cannot be read"):
        trace.read(tmp_path / "nothing.jsonl")


def test_equal_leading_hash_ids_give_equal_leading_text_and_others_do_not():
    first, second, third = replayed(
        Entry(0, 3 * BLOCK_TOKENS, 1, (1, 2, 3)),
        Entry(0, 3 * BLOCK_TOKENS, 1, (1, 2, 9)),
        Entry(0, 3 * BLOCK_TOKENS, 1, (7, 2, 3)),
    )
    block = len(text(first)) // 3
    assert text(first)[: 2 * block] == text(second)[: 2 * block]
    assert text(first)[2 * block : 2 * block + 8] != text(second)[2 * block : 2 * block + 8]
    assert text(first)[:8] != text(third)[:8]
    assert text(first)[block:] == text(third)[block:]


def test_a_prompt_is_as_long_as_the_trace_says():
    (ask,) = replayed(Entry(0, 700, 1, (1, 2)), chars_per_token=4.0)
    assert len(text(ask)) == 2_800


def test_a_faster_replay_is_due_earlier_and_long_replies_can_be_cut():
    entries = (Entry(0, 10, 5, (1,)), Entry(3_000, 10, 500, (1,)))
    assert [ask.due_seconds for ask in replayed(*entries, speed=2.0)] == [0.0, 1.5]
    assert [ask.body["max_tokens"] for ask in replayed(*entries, max_tokens=64)] == [5, 64]
    assert replayed(*entries) == replayed(*entries)
