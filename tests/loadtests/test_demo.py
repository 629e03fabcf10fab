"""The demo's accounting: what counts, and when its exit code may be 0."""

import json

import pytest

from loadtests.stack.access_log import AccessLogEntry, AccessLogReader
from loadtests.stack.client import Reply, Usage
from loadtests.stack.conversations import conversations
from loadtests.stack.demo import Row, Sent, join, spread, summarise

WORKERS = {"127.0.0.1:8001": 0, "127.0.0.1:8002": 1}


def row(**changes) -> Row:
    fields = {
        "conversation": "bread",
        "turn": 0,
        "streamed": False,
        "status": 200,
        "error": "",
        "attached": 40,
        "prompt_tokens": 40,
        "cached_tokens": 0,
        "worker": 1,
        "first_token_seconds": None,
        "total_seconds": 0.1,
    }
    return Row(**{**fields, **changes})


def entry(request_id: str, **changes) -> AccessLogEntry:
    line = {"request_id": request_id, "status": 200, "duration_ms": 12, "upstream": "127.0.0.1:8002"}
    return AccessLogEntry.parse(json.dumps({**line, **changes}))


def reply(request_id: str = "a", **changes) -> Reply:
    fields = {
        "request_id": request_id,
        "status": 200,
        "text": "yes",
        "usage": Usage(prompt_tokens=40, completion_tokens=8, cached_tokens=32),
        "first_token_seconds": 0.01,
        "total_seconds": 0.1,
    }
    return Reply(**{**fields, **changes})


def test_everything_holds_when_every_request_is_answered_tokenized_and_routed_to_its_prefix():
    summary, everything = summarise([row(), row(turn=1), row(conversation="story", worker=0)])
    assert everything
    assert json.loads(summary.as_json()) == {
        "requests": 3,
        "ok": 3,
        "tokenized": 3,
        "worker_prompt_tokens_equal": 3,
        "prefix_routed_to_same_worker": 1,
        "errors": 0,
    }


@pytest.mark.parametrize(
    ("changes", "field", "value"),
    [
        ({"status": 503, "prompt_tokens": None}, "errors", 1),
        ({"error": "the stream ended early"}, "ok", 2),
        ({"prompt_tokens": None}, "ok", 2),
        ({"attached": None}, "tokenized", 2),
        ({"attached": 0}, "tokenized", 2),
        ({"attached": 39}, "worker_prompt_tokens_equal", 2),
        ({"worker": 0}, "prefix_routed_to_same_worker", 0),
        ({"worker": None}, "prefix_routed_to_same_worker", 0),
    ],
)
def test_one_request_that_does_not_hold_shows_in_its_number_and_fails_the_demo(changes, field, value):
    summary, everything = summarise([row(), row(conversation="story"), row(turn=1, **changes)])
    assert not everything
    assert getattr(summary, field) == value


def test_unknown_workers_of_both_turns_are_not_the_same_worker():
    summary, everything = summarise([row(worker=None), row(turn=1, worker=None)])
    assert summary.prefix_routed_to_same_worker == 0
    assert not everything


def test_no_requests_at_all_is_no_success():
    assert summarise([])[1] is False


def test_conversations_spread_counts_the_workers_of_first_turns():
    rows = [row(worker=0), row(turn=1, worker=1), row(conversation="story", worker=0)]
    assert spread(rows) == 1
    assert spread([*rows, row(conversation="travel", worker=1)]) == 2


def test_a_row_joins_what_client_envoy_and_worker_saw_by_request_id():
    sent = [
        Sent("bread", 0, streamed=True, reply=reply("a")),
        Sent("bread", 1, streamed=False, reply=reply("b")),
    ]
    entries = {"a": entry("a", token_count=40, upstream="127.0.0.1:8001"), "b": entry("b")}
    first, second = join(sent, entries, WORKERS)
    assert (first.attached, first.prompt_tokens, first.cached_tokens, first.worker) == (40, 40, 32, 0)
    assert (second.attached, second.worker) == (None, 1)


def test_a_request_that_envoy_never_logged_has_no_worker_and_no_ids():
    (only,) = join([Sent("bread", 0, streamed=False, reply=reply("a"))], {}, WORKERS)
    assert only.attached is None
    assert only.worker is None


def test_each_turn_of_a_conversation_begins_with_all_of_the_turn_before():
    for conversation in conversations():
        previous: dict = {}
        for turn in range(conversation.turns):
            body = json.loads(json.dumps(conversation.body(turn)))
            if "prompt" in body:
                assert body["prompt"].startswith(previous.get("prompt", ""))
            else:
                earlier = previous.get("messages", [])
                assert body["messages"][: len(earlier)] == earlier
                assert len(body["messages"]) > len(earlier)
                assert body.get("tools") == previous.get("tools", body.get("tools"))
            conversation.heard(turn, "an answer")
            previous = body
        assert conversation.turns > 1


def test_conversations_hear_the_answer_unless_their_script_has_one():
    for conversation in conversations():
        conversation.body(0)
        conversation.heard(0, "the model's words")
        second = json.dumps(conversation.body(1))
        assert ("the model's words" in second) != ('"tool_calls"' in second)


def test_the_access_log_is_read_up_to_its_last_whole_line(tmp_path):
    reader = AccessLogReader(tmp_path / "access.log")
    assert reader.entries() == []
    whole = json.dumps(
        {"request_id": "a", "status": 200, "duration_ms": 3, "token_count": 7, "engine_exact": True}
    )
    reader.path.write_text(f'{whole}\n{{"request_id": "b", "sta')
    (only,) = reader.entries()
    assert (only.request_id, only.token_count, only.engine_exact, only.upstream) == ("a", 7, True, None)


def test_waiting_for_a_request_that_is_never_logged_ends_without_it(tmp_path):
    reader = AccessLogReader(tmp_path / "access.log")
    reader.path.write_text(json.dumps({"request_id": "a", "status": 200, "duration_ms": 3}) + "\n")
    assert set(reader.wait_for({"a", "b"}, seconds=0.1)) == {"a"}
