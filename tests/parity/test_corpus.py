"""The corpora: repeatable, varied, and what they claim to be. The oracles are measured by `make parity`."""

import json
import random
from collections import Counter

import pytest

from tests.parity.comparison import compare
from tests.parity.corpus import recorded
from tests.parity.corpus.case import CHAT, COMPLETION, Case
from tests.parity.corpus.edge_cases import edge_cases
from tests.parity.corpus.generated import generated
from tests.parity.corpus.json_text import Raw, Spelling, write
from tests.parity.oracles import Answer
from tests.parity.ours import Result


def test_the_same_seed_gives_the_same_requests_and_a_longer_run_begins_with_a_shorter_one():
    assert list(generated(7, 20)) == list(generated(7, 40))[:20]
    assert list(generated(7, 20)) != list(generated(8, 20))


def test_generated_requests_are_json_and_cover_every_kind():
    cases = list(generated(1, 300))
    bodies = [json.loads(case.body("m")) for case in cases]
    kinds = {"plain", "tools", "parts", "thinking", "hostile", "odd", "continue", "completion"}
    assert {case.kind for case in cases} == kinds
    assert {case.path for case in cases} == {CHAT, COMPLETION}
    assert all(body["model"] == "m" for body in bodies)


def test_most_generated_requests_are_sound_so_that_they_measure_something():
    """What any engine refuses measures nothing: unknown roles, null users, broken arguments stay rare."""
    bodies = [json.loads(case.body("m")) for case in generated(1, 400) if case.path == CHAT]
    roles = {"system", "developer", "user", "assistant", "tool", "function"}
    unsound = [b for b in bodies if any(message.get("role") not in roles for message in b["messages"])]
    assert len(unsound) < len(bodies) * 0.05


def test_generated_requests_hold_every_field_that_decides_a_prompt():
    seen: Counter[str] = Counter()
    for case in generated(1, 600):
        body = json.loads(case.body("m"))
        seen.update(body.keys())
        for message in body.get("messages", ()):
            seen.update(f"message.{name}" for name in message)
    fields = ("tools", "tool_choice", "chat_template_kwargs", "reasoning_effort", "continue_final_message")
    message_fields = ("name", "tool_calls", "tool_call_id", "reasoning_content", "reasoning")
    for name in (*fields, *(f"message.{name}" for name in message_fields)):
        assert seen[name] > 0, name


def test_lone_surrogates_are_escaped_since_utf8_has_none():
    assert write("a\ud800é", Spelling()) == '"a\\ud800\\u00e9"'
    assert all(case.body("m").encode() for case in generated(3, 200))


def test_numbers_keep_the_spelling_that_serializers_would_change():
    assert write({"n": [Raw("1e3"), Raw("-0")]}, Spelling(",", ":")) == '{"n":[1e3,-0]}'


def test_a_body_has_its_model_first_then_what_the_oracle_adds():
    case = Case("n", "k", CHAT, '{"a": 1}')
    assert case.body("m", '"x": 2') == '{"model": "m", "x": 2, "a": 1}'
    assert Case("n", "k", CHAT, "{}").body("m") == '{"model": "m"}'


def test_names_of_edge_cases_are_unique():
    names = [case.name for case in edge_cases()]
    assert len(names) == len(set(names))


RECORD = {
    "id": "r",
    "conversations": [
        {"from": "human", "value": "q1"},
        {"from": "gpt", "value": "a1"},
        {"from": "human", "value": "q2"},
        {"from": "gpt", "value": "a2"},
    ],
}


def test_a_recorded_conversation_ends_with_a_user(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorded, "sharegpt_records", lambda: iter([RECORD] * 9))
    for case in recorded.sharegpt(1, 5):
        messages = json.loads(case.text)["messages"]
        assert messages[-1]["role"] == "user"
        assert messages[0] == {"role": "user", "content": "q1"}


def test_a_recorded_conversation_with_an_unknown_speaker_is_left_out(monkeypatch: pytest.MonkeyPatch):
    strange = {"id": "s", "conversations": [{"from": "nobody", "value": "x"}]}
    monkeypatch.setattr(recorded, "sharegpt_records", lambda: iter([strange, RECORD]))
    assert len(list(recorded.sharegpt(1, 1))) == 1


ENTRY = {
    "question": [[{"role": "user", "content": "area?"}]],
    "function": [
        {
            "name": "math.area",
            "description": "d",
            "parameters": {"type": "dict", "properties": {"r": {"type": "float"}}, "required": ["r"]},
        }
    ],
}


def test_functions_get_names_that_the_api_allows_and_calls_get_results(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(recorded, "bfcl_entries", lambda: [ENTRY] * 20)
    for case in recorded.tool_conversations(1, 20):
        request = json.loads(case.text)
        assert request["tools"][0]["function"]["name"] == "math_area"
        calls = [c["id"] for m in request["messages"] for c in m.get("tool_calls", ())]
        results = [m["tool_call_id"] for m in request["messages"] if m["role"] == "tool"]
        assert calls == results


@pytest.mark.parametrize(
    ("ours", "theirs", "counted"),
    [
        (Result((1, 2), exact=True), Answer((1, 2)), "equal"),
        (Result((1, 2), exact=True), Answer((1, 3)), "mismatches"),
        (Result((1, 2), exact=True), Answer(None, "400"), "refused"),
        (Result((1, 2), exact=False, reason="r"), Answer((1, 3)), "not_exact"),
        (Result(None, exact=False, reason="r"), Answer((1, 3)), "skipped"),
        (Result(None, exact=False, crash="TypeError"), Answer(None), "mismatches"),
    ],
)
def test_every_case_is_counted_once_and_only_a_promise_can_be_broken(ours, theirs, counted):
    case = next(edge_cases())
    outcome = compare("m", "o", [case], [ours], [theirs])
    assert outcome.cases == 1
    value = getattr(outcome, counted)
    assert (value if isinstance(value, int) else len(value)) == 1


def test_hostile_text_is_hostile():
    from tests.parity.corpus.text import SPECIAL_TOKENS, hostile

    rng = random.Random(1)
    texts = [hostile(rng) for _ in range(400)]
    assert any(token in text for token in SPECIAL_TOKENS for text in texts)
    assert any("\0" in text for text in texts)
    assert any("\ud800" <= character <= "\udfff" for text in texts for character in text)
    assert max(map(len, texts)) >= 3000
