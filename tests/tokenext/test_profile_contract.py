"""The contract of the seam to an engine's habits, over every profile that ships."""

import json
from datetime import UTC, datetime

import pytest

from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tokenext.chat_template import ChatTemplates
from tokenext.declined import Declined
from tokenext.dynamo_profile import DynamoProfile
from tokenext.openai import Api, ChatRequest, CompletionRequest, parse, read_body
from tokenext.profiles import InexactReason, PlainProfile, Profile
from tokenext.sglang_profile import SglangProfile
from tokenext.transformers_profile import TransformersProfile
from tokenext.vllm_profile import VllmProfile

USER = {"role": "user", "content": "hi"}
IMAGE = {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}
PROFILES = {
    "dynamo": DynamoProfile,
    "vllm": VllmProfile,
    "sglang": SglangProfile,
    "transformers": TransformersProfile,
}


@pytest.fixture(params=["plain", *PROFILES])
def any_profile(request: pytest.FixtureRequest) -> Profile:
    templates = ChatTemplates({"default": CHAT_TEMPLATE}, now=lambda: datetime.now(UTC))
    if request.param == "plain":
        return PlainProfile(templates, {})
    return PROFILES[request.param](templates, special_tokens={}, template_kwargs={})


def chat_request(*messages: dict, **fields: object) -> ChatRequest:
    body = {"model": "m", "messages": messages or [USER], **fields}
    request = parse(Api.CHAT, read_body(json.dumps(body).encode()))
    assert isinstance(request, ChatRequest)
    return request


class TestEveryProfile:
    def test_a_chat_is_rendered_with_its_template(self, any_profile):
        text = any_profile.chat(chat_request()).text
        assert text == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"

    @pytest.mark.parametrize("any_profile", ["plain", "dynamo", "vllm"], indirect=True)
    def test_engines_that_join_text_parts_do_so_for_a_template_that_takes_text(self, any_profile):
        parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
        assert "user\na\nb<" in any_profile.chat(chat_request({"role": "user", "content": parts})).text

    def test_a_generation_prompt_can_be_left_out(self, any_profile):
        text = any_profile.chat(chat_request(add_generation_prompt=False)).text
        assert text == "<|im_start|>user\nhi<|im_end|>\n"

    def test_a_chat_never_gets_special_tokens_on_top_of_its_templates(self, any_profile):
        assert any_profile.chat(chat_request()).add_special_tokens is False

    @pytest.mark.parametrize(
        "message",
        [{"role": "critic", "content": "c"}, {"role": "user", "content": "u", "reasoning": ["r"]}, IMAGE],
    )
    def test_messages_that_openai_does_not_know_are_declined_or_inexact(self, any_profile, message):
        asked = chat_request(message)
        assert asked.unusual is not None
        try:
            prompt = any_profile.chat(asked)
        except Declined as declined:
            assert declined.reason is asked.unusual  # noqa: PT017  # either is right
        else:
            assert prompt.inexact is InexactReason.MESSAGE_FIELD

    def test_a_completions_text_is_its_prompt(self, any_profile):
        assert any_profile.completion(CompletionRequest("m", frozenset({"prompt"}), "hi")).text == "hi"
