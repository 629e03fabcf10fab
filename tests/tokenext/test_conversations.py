"""Conversations are known again by their bytes, and by nothing less."""

import json
from datetime import UTC, datetime

import pytest

from extproc.token_metadata import BYTES_PER_ID, TokenIds
from tokenext.chat_template import ChatTemplate
from tokenext.conversations import Conversations
from tokenext.declined import Declined, SkipReason
from tokenext.minijinja_doubts import Doubts
from tokenext.openai import Api, ChatRequest, parse, read_body
from tokenext.turns import Conversation, Turn

LONG = "All the world's a stage, and all the men and women merely players. " * 40


def messages(count: int, seed: str = "a") -> list[dict[str, str]]:
    roles = ("user", "assistant")
    return [{"role": roles[each % 2], "content": f"{seed}{each} {LONG}"} for each in range(count)]


def parsed(conversations: Conversations | None, turn: list, dump=json.dumps, **fields) -> ChatRequest:
    body = dump({"model": "m", "messages": turn, **fields}).encode()
    request = parse(Api.CHAT, read_body(body), conversations)
    assert isinstance(request, ChatRequest)
    return request


class Printing:
    """A template that prints the contents, and says so for the memory."""

    memory_key = "printing"

    def render(self, messages, variables, doubts=None, memory=None):
        return "".join(message["content"] for message in messages)


def said(conversations: Conversations, turn: list, **options) -> ChatRequest:
    request = parsed(conversations, turn, **options)
    request.turn.render(Printing(), list(request.messages), {})
    request.turn.keep()
    return request


@pytest.fixture
def conversations() -> Conversations:
    return Conversations(1 << 20)


def test_the_next_turn_has_the_very_messages_of_the_last_one(conversations):
    first = said(conversations, messages(3))
    second = said(conversations, messages(5))
    assert second.messages == parsed(None, messages(5)).messages
    assert all(new is old for new, old in zip(second.messages, first.messages, strict=False))
    assert conversations.snapshot().continued == 1
    assert conversations.snapshot().entries == 1  # the longer turn took the place of the shorter


@pytest.mark.parametrize("indent", [None, 2])
def test_white_space_between_messages_changes_nothing(conversations, indent):
    def dump(body):
        return json.dumps(body, indent=indent) + "\n "

    said(conversations, messages(3), dump=dump)
    assert said(conversations, messages(6), dump=dump).messages == parsed(None, messages(6)).messages
    assert conversations.snapshot().continued == 1


def test_a_message_that_goes_on_is_another_message(conversations):
    turn = messages(3)
    said(conversations, turn)
    longer = [*turn[:-1], {**turn[-1], "content": turn[-1]["content"] + "more"}]
    assert said(conversations, longer).messages == tuple(longer)
    assert conversations.snapshot().continued == 0


def test_an_edited_message_is_not_mistaken_for_the_old_one(conversations):
    said(conversations, messages(6))
    edited = messages(8)
    edited[1]["content"] = edited[1]["content"].replace("men", "man")
    assert said(conversations, edited).messages == tuple(edited)
    assert conversations.snapshot().continued == 0


def test_branches_of_one_conversation_are_all_found(conversations):
    stem = messages(3)
    for branch in "xyz":
        said(conversations, [*stem, *messages(2, seed=branch)])
    for branch in "xyz":
        turn = [*stem, *messages(4, seed=branch)]
        assert said(conversations, turn).messages == tuple(turn)
    assert conversations.snapshot().continued == 3


def test_salts_do_not_share(conversations):
    said(conversations, messages(3), cache_salt="one")
    assert said(conversations, messages(5), cache_salt="two").turn.before is None
    assert said(conversations, messages(5), cache_salt="one").turn.before is not None


def test_the_same_request_again_is_known_too(conversations):
    said(conversations, messages(3))
    again = said(conversations, messages(3))
    assert again.turn.before is not None
    assert again.messages == tuple(messages(3))
    assert conversations.snapshot().entries == 1


def test_what_a_known_beginning_is_followed_by_is_still_checked(conversations):
    said(conversations, messages(3))
    for wrong in ({"role": "nobody", "content": "x"}, {"role": "user", "content": 7}):
        assert parsed(conversations, [*messages(3), wrong]).unusual is SkipReason.BAD_REQUEST_SHAPE
    part = {"type": "image_url"}
    asked = parsed(conversations, [*messages(3), {"role": "user", "content": [part]}])
    assert asked.unusual is SkipReason.MULTIMODAL
    with pytest.raises(Declined) as caught:
        parsed(conversations, [*messages(3), "text"])
    assert caught.value.reason is SkipReason.BAD_REQUEST_SHAPE


def test_what_only_one_kind_of_engine_takes_is_not_remembered(conversations):
    said(conversations, [{"role": "nobody", "content": "x"}, *messages(3)])
    assert conversations.snapshot().entries == 0


@pytest.mark.parametrize("place", [0, 4, 6])
def test_a_dropped_character_is_in_no_turns_prompt_whenever_it_came(conversations, place):
    template = ChatTemplate("{% for m in messages %}[{{ m.content }}]{% endfor %}", now=lambda: None)
    spoken = messages(9)
    spoken[place]["content"] = f"a\0b {LONG}"
    for count in (3, 5, 7, 9):
        request = parsed(conversations, spoken[:count])
        prompt = request.turn.render(template, list(request.messages), {}, dropped="\0")
        request.turn.keep()
        assert prompt == template.render(spoken[:count], {}).replace("\0", "")
    assert conversations.snapshot().continued == 3


def test_who_drops_nothing_gets_all_beside_one_who_does(conversations):
    template = ChatTemplate("{% for m in messages %}[{{ m.content }}]{% endfor %}", now=lambda: None)
    spoken = messages(7)
    spoken[5]["content"] = f"a\0b {LONG}"
    for count in (3, 5, 7):
        for dropped in ("\0", ""):
            request = parsed(conversations, spoken[:count])
            prompt = request.turn.render(template, list(request.messages), {}, dropped=dropped)
            request.turn.keep()
            assert ("\0" in prompt) is (count == 7 and not dropped)


def test_a_turn_that_was_not_rendered_is_not_kept(conversations):
    parsed(conversations, messages(3)).turn.keep()
    assert conversations.snapshot().entries == 0


def test_a_turns_ids_are_kept_and_counted(conversations):
    first = said(conversations, messages(3))
    held = conversations.snapshot().bytes
    again = parsed(conversations, messages(3))
    again.turn.render(Printing(), list(again.messages), {})
    assert again.turn.ids_json(TokenIds.pack([7, 70_000])) == b"[7,70000]"
    again.turn.keep()
    assert first.turn.before is None
    assert conversations.snapshot().bytes == held + len(b"[7,70000]") + 2 * BYTES_PER_ID


def test_short_conversations_are_not_kept(conversations):
    said(conversations, [{"role": "user", "content": "hi"}])
    assert conversations.snapshot().entries == 0


def test_the_budget_holds_and_the_oldest_make_room():
    conversations = Conversations(200_000)
    for seed in "abcdefghijklmnopqrst":
        said(conversations, messages(6, seed=seed))
        assert conversations.snapshot().bytes <= 200_000
    seen = conversations.snapshot()
    assert seen.evictions > 0
    assert seen.entries + seen.evictions == 20
    assert said(conversations, messages(8, seed="t")).turn.before is not None
    assert said(conversations, messages(8, seed="a")).turn.before is None


def test_one_conversation_beyond_the_budget_is_not_kept_and_drives_nobody_out():
    conversations = Conversations(100_000)
    said(conversations, messages(4))
    said(conversations, messages(60, seed="b"))
    assert parsed(conversations, messages(6)).turn.before is not None


def test_many_that_begin_alike_keep_to_a_bounded_number(conversations):
    stem = messages(4)
    for branch in range(20):
        said(conversations, [*stem, {"role": "assistant", "content": str(branch)}])
    assert conversations.snapshot().entries == 8


def test_dropping_what_is_gone_already_does_no_harm(conversations):
    before = Conversation(b"[" + b"x" * 5_000, (), {})
    conversations.keep("", Conversation(b"[" + b"y" * 5_000, (), {}), before)
    conversations.keep("", Conversation(b"[" + b"z" * 5_000, (), {}), before)
    assert conversations.snapshot().entries == 2


def test_a_turn_without_a_memory_just_renders():
    assert Turn().render(Printing(), [{"content": "a"}, {"content": "b"}], {}) == "ab"


def test_a_doubt_about_an_early_message_is_there_at_every_turn(conversations):
    source = "{% for m in messages %}{{ m.tool_calls }}{{ m.content }}{% endfor %}"  # lists print differently
    template = ChatTemplate(source, now=lambda: datetime(2026, 1, 1, tzinfo=UTC), watched=True)
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turn = [*messages(1), {"role": "assistant", "content": "", "tool_calls": [call]}, *messages(6, seed="b")]
    for length in (4, 6, 8):
        doubts = Doubts()
        request = parsed(conversations, turn[:length])
        request.turn.render(template, list(request.messages), {}, doubts)
        request.turn.keep()
        assert doubts.found
    for length in (1, 3):
        doubts = Doubts()
        request = parsed(conversations, messages(length, seed="c"))
        request.turn.render(template, list(request.messages), {}, doubts)
        request.turn.keep()
        assert not doubts.found
