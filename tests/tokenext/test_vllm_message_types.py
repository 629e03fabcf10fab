"""Which messages vLLM takes: each expectation was seen at its render server (vllm_odd_messages.py)."""

import json
from datetime import UTC, datetime

import pytest
from msgspec import Raw

from tests.tokenext.vllm_odd_messages import ODD_MESSAGES, Seen
from tokenext.chat_template import ChatTemplates
from tokenext.declined import Declined, SkipReason
from tokenext.json_object import JsonObject
from tokenext.openai import Api, ChatRequest, parse
from tokenext.profiles import InexactReason, Prompt
from tokenext.vllm_profile import VllmProfile

TEXTS = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}"
PARTS = "{% for m in messages %}{% for part in m.content %}{{ part | tojson }}\n{% endfor %}{% endfor %}"
SHAPES = (SkipReason.BAD_REQUEST_SHAPE, SkipReason.MULTIMODAL)


def ask(messages: list, source: str = TEXTS) -> Prompt:
    # Put together from its fields, since half a surrogate pair is nothing that a body is split with.
    fields = {"model": Raw(b'"m"'), "messages": Raw(json.dumps(messages).encode())}
    request = parse(Api.CHAT, JsonObject(b"", fields))
    assert isinstance(request, ChatRequest)
    templates = ChatTemplates({"default": source}, now=lambda: datetime.now(UTC))
    return VllmProfile(templates, special_tokens={}, template_kwargs={}).chat(request)


def named(seen: Seen) -> list[str]:
    return [name for name, (_, each) in ODD_MESSAGES.items() if each is seen]


@pytest.mark.parametrize("name", named(Seen.TAKEN))
def test_what_vllm_takes_is_rendered(name):
    ask(ODD_MESSAGES[name][0])


@pytest.mark.parametrize("name", named(Seen.REFUSED))
def test_what_vllm_refuses_is_declined(name):
    with pytest.raises(Declined) as caught:
        ask(ODD_MESSAGES[name][0])
    assert caught.value.reason in SHAPES


@pytest.mark.parametrize("name", named(Seen.LATER))
def test_what_a_template_or_a_tokenizer_refuses_is_left_to_them(name):
    ask(ODD_MESSAGES[name][0])


def test_what_other_engines_would_refuse_is_never_exact():
    assert ask([{"role": "critic", "content": "c"}]).inexact is InexactReason.MESSAGE_FIELD


def test_a_picture_is_told_as_one():
    with pytest.raises(Declined) as caught:
        ask(ODD_MESSAGES["image"][0])
    assert caught.value.reason is SkipReason.MULTIMODAL


class TestParts:
    SAID = (
        {"type": "refusal", "refusal": "r"},
        "bare",
        {"type": "thinking", "thinking": "t", "closed": True},
        {"type": "tool_reference", "name": "f"},
        {"type": "text"},
        {"type": "output_text", "text": "o", "mine": 1},
    )

    def test_they_are_joined_as_texts_whatever_they_came_as(self):
        assert ask([{"role": "user", "content": [*self.SAID]}]).text == "user: r\nbare\nt\nf\no\n"

    def test_they_are_text_parts_with_the_clients_own_fields_for_templates_that_take_parts(self):
        shown = ask([{"role": "user", "content": [*self.SAID]}], PARTS).text.splitlines()
        assert list(map(json.loads, shown)) == [
            {"type": "text", "text": "r"},
            {"type": "text", "text": "bare"},
            {"type": "text", "text": "t"},
            {"type": "tool_reference", "name": "f"},
            {"type": "text", "text": "o", "mine": 1},
        ]

    def test_a_tools_references_stay_parts_where_its_texts_would_be_joined(self):
        result = [{"type": "text", "text": "a"}, {"type": "tool_reference", "name": "f"}]
        message = {"role": "tool", "tool_call_id": "1", "content": result}
        assert ask([message], PARTS).text.count("\n") == len(result)
