"""Models made of fakes."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tokenext.catalog import Model
from tokenext.chat_template import ChatTemplates
from tokenext.engine import FakeEngine
from tokenext.handoff import Handoff
from tokenext.openai import ChatRequest, CompletionRequest
from tokenext.profiles import InexactReason, PlainProfile, Prompt


def fake_model(name: str = "m", **fields: Any) -> Model:
    """A model of fakes, ready to tokenize: one id per byte, 256 in front of completions."""
    templates = ChatTemplates({"default": CHAT_TEMPLATE}, now=lambda: datetime.now(UTC))
    model = Model(
        name=name,
        aliases=(),
        digest="sha256:" + "0" * 64,
        engine=FakeEngine(),
        engine_reason="a test",
        profile=PlainProfile(templates, {}),
        handoff=Handoff.DYNAMO,
    )
    return replace(model, **fields)


class InexactProfile:
    """Renders nothing and is sure of nothing."""

    name = "inexact"

    def chat(self, request: ChatRequest) -> Prompt:
        del request
        return Prompt("chat", add_special_tokens=False, inexact=InexactReason.TEMPLATE_CLOCK)

    def completion(self, request: CompletionRequest) -> Prompt:
        return Prompt(request.prompt, add_special_tokens=False, inexact=InexactReason.UNKNOWN_FIELD)


class Clock:
    """Goes on by a second at every look."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        self.now += 1.0
        return self.now


def chat_body(**fields: object) -> Mapping[str, object]:
    return {"model": "m", "messages": [{"role": "user", "content": "hi"}], **fields}
