"""A body that goes on from a conversation is the body that it would be if all of it were read."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from extproc.token_metadata import Kind, TokenIds, TokenRecord
from tests.tokenext.test_json_object import json_values
from tokenext.continued_body import ContinuedBody, go_on
from tokenext.conversations import Conversations
from tokenext.handoff import Handoff, hand_over, strip
from tokenext.json_object import NotAnObjectError, read
from tokenext.openai import Api, ChatRequest, parse, read_body

LONG = "So we beat on, boats against the current. " * 60


def messages(count: int) -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[each % 2], "content": f"{each} {LONG}"} for each in range(count)]


def remembered(turn: list, **fields: object) -> Conversations:
    """What is there after a request with these messages."""
    conversations = Conversations(1 << 20)
    request = parse(
        Api.CHAT, read(json.dumps({"model": "m", "messages": turn, **fields}).encode()), conversations
    )
    assert isinstance(request, ChatRequest)
    request.turn.render(Printing(), request.messages, {})
    request.turn.keep()
    return conversations


class Printing:
    memory_key = "printing"

    def render(self, messages, variables, doubts=None, memory=None):
        return ""


KNOWN = json.dumps(messages(3))[:-1]
NEXT = json.dumps({"role": "user", "content": "And then?"})


def body(opening: str = '{"model": "m", ', rest: str = f", {NEXT}]" + "}") -> bytes:
    return f'{opening}"messages": {KNOWN}{rest}'.encode()


def gone_on(text: bytes) -> ContinuedBody | None:
    return go_on(text, remembered(messages(3)))


@pytest.mark.parametrize(
    "opening",
    [
        "{",
        '{"model": "m", ',
        ' \n{\t"stream" : true ,"temperature":-1.5e3, "user": "\u00e9", "n":null,\r\n',
        '{"messages": "first", ',
    ],
)
@pytest.mark.parametrize(
    "rest",
    [
        "]}",
        f", {NEXT}]" + "}",
        f"  ,{NEXT},{NEXT}\n]" + ' , "stream": true, "tools": [{"a": ["]", "}"]}]}\n',
        f",{NEXT}]" + ',"stream":true,"stream":false}',
    ],
)
def test_it_has_the_fields_of_the_whole_body(opening, rest):
    text = body(opening, rest)
    continued = gone_on(text)
    assert continued is not None
    assert continued.text is text
    whole = read(text).fields
    assert {name: bytes(raw) for name, raw in continued.fields.items()} == {
        name: bytes(raw) for name, raw in whole.items()
    }


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(body('{"metadata": {"a": 1}, '), id="fields in front that are not simple"),
        pytest.param(body('{"a\\u0062": 1, '), id="a name in front that is escaped"),
        pytest.param(body(rest=f",{NEXT}]" + ',"messages":[]}'), id="messages again, behind"),
        pytest.param(
            body(rest=f",{NEXT}]" + f',"messages":[{NEXT}]' + "}"), id="the same new messages again"
        ),
        pytest.param(body(rest=f",{NEXT}]" + f',"mess\\u0061ges":[{NEXT}]' + "}"), id="again, and escaped"),
        pytest.param(body(rest=f",{NEXT}]" + ',"cache_salt":"s"}'), id="a salt behind"),
        pytest.param(body('{"cache_salt": "s", '), id="a salt in front"),
        pytest.param(body().replace(b"0 So", b"0 No"), id="another first message"),
        pytest.param(body(rest="x]}"), id="not a whole message"),
        pytest.param(b'{"model": "m", "messages": [' + NEXT.encode() + b"]}", id="a short conversation"),
    ],
)
def test_whatever_is_no_plain_case_is_read_as_before(text):
    assert gone_on(text) is None


@pytest.mark.parametrize(
    "text",
    [
        body(rest=", ]}"),
        body(rest=",]}"),
        body(rest=f",,{NEXT}]" + "}"),
        body(rest=f",{NEXT}" + "}"),
        body(rest=f",{NEXT}],]" + "}"),
        body(rest=f",{NEXT}]" + ',"a":}'),
        body(rest=f",{NEXT}]" + ' "a":1}'),
        body(rest=f",{NEXT}]" + ",}"),
        body(rest=f",{NEXT}]" + "}}"),
        body(rest=f",{NEXT}]"),
        body(rest=f",{NEXT}]" + "} x"),
        body('{"model": m, '),
        body('{"model": "m",, '),
        body('x{"model": "m", '),
        body('{"model": "m" '),
        body('{"model": 01, '),
    ],
)
def test_what_is_no_json_is_not_taken_for_it(text):
    with pytest.raises(NotAnObjectError):
        read(text)
    assert gone_on(text) is None


names = st.sampled_from(["model", "stream", "messages", "tools", "a", "\u00e9", "\\"])


@given(st.dictionaries(names, json_values, max_size=3), st.dictionaries(names, json_values, max_size=3))
def test_any_fields_around_the_messages_are_those_of_the_whole_body(front, behind):
    front_text = "".join(f"{json.dumps(name)}: {json.dumps(value)}, " for name, value in front.items())
    behind_text = "".join(f", {json.dumps(name)}: {json.dumps(value)}" for name, value in behind.items())
    text = body("{" + front_text, f", {NEXT}]{behind_text}" + "}")
    continued = gone_on(text)
    if continued is not None:
        whole = read(text).fields
        assert {name: bytes(raw) for name, raw in continued.fields.items()} == {
            name: bytes(raw) for name, raw in whole.items()
        }


HEAD = b'{"model": "m", "messages": '
TAIL = f', {NEXT}], "stream": true, "tools": [{{"a": ["]"]}}]}}'.encode()
CHARS = [b"", *(bytes([each]) for each in b'[]{},:" \\\n0x-'), b'"messages"', b'"cache_salt":""']
edits = st.lists(st.tuples(st.integers(0, 100), st.integers(0, 2), st.sampled_from(CHARS)), max_size=3)


def edited(text: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    for where, removed, put in changes:
        place = where % (len(text) + 1)
        text = text[:place] + put + text[place + removed :]
    return text


@settings(max_examples=1_000)
@given(edits, edits)
def test_whatever_stands_around_what_is_known_it_means_the_same_or_is_no_json_either_way(front, behind):
    text = edited(HEAD, front) + KNOWN.encode() + edited(TAIL, behind)
    continued = go_on(text, REMEMBERED)
    if continued is not None:
        whole = read(text).fields  # or this is a body that is none
        assert {name: bytes(raw) for name, raw in continued.fields.items()} == {
            name: bytes(raw) for name, raw in whole.items()
        }
        assert [*continued.before.messages, *json.loads(continued.following)] == json.loads(
            bytes(whole["messages"])
        )


REMEMBERED = remembered(messages(3))


def test_a_request_of_it_is_the_request_that_it_would_be():
    conversations = remembered(messages(3))
    text = body(rest=f", {NEXT}]" + ', "tools": [{"type": "function", "function": {"name": "f"}}]}')
    continued = read_body(text, conversations)
    assert isinstance(continued, ContinuedBody)
    request = parse(Api.CHAT, continued, conversations)
    assert request == parse(Api.CHAT, read(text))
    assert isinstance(request, ChatRequest)
    assert request.turn.before is continued.before


@pytest.mark.parametrize("handoff", [Handoff.DYNAMO, Handoff.VLLM, Handoff.SGLANG])
@pytest.mark.parametrize("own", ["", ', "nvext": {"token_data": [1], "a": 2}, "input_ids": [3]'])
def test_an_engine_is_handed_what_it_would_be_of_the_whole_body(handoff, own):
    text = body(rest=f", {NEXT}]{own}" + "}")
    record = TokenRecord("m", "sha256:0", TokenIds.pack([7, 8]), Kind.CHAT, engine_exact=True)
    continued = gone_on(text)
    assert continued is not None
    for strip_messages in (False, True):
        given = hand_over(handoff, continued, record, strip_messages=strip_messages)
        assert given == hand_over(handoff, read(text), record, strip_messages=strip_messages)
    assert strip(continued) == strip(read(text))


def test_the_same_request_again_goes_on_by_nothing():
    conversations = remembered(messages(3))
    text = body(rest="]}")
    request = parse(Api.CHAT, read_body(text, conversations), conversations)
    assert isinstance(request, ChatRequest)
    assert request.messages == tuple(messages(3))


def test_conversations_of_a_salt_are_not_found_by_bodies_without_one():
    salted = remembered(messages(3), cache_salt="s")
    assert go_on(body(), salted) is None
