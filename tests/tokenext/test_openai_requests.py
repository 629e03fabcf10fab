"""Whatever a client sends: no crash, no hang, ids only from sound requests, and no other byte changed."""

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cache
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.tokenext.model_dirs import CHAT_TEMPLATE
from tests.tokenext.models import Clock, fake_model
from tests.tokenext.openai_requests import megabytes, requests, spelled
from tokenext.catalog import Catalog, Model
from tokenext.chat_template import ChatTemplates
from tokenext.declined import Declined
from tokenext.dynamo_profile import DynamoProfile
from tokenext.handoff import Handoff, strip
from tokenext.json_object import JsonObject, read
from tokenext.openai import Api, Role, parse, read_body
from tokenext.sglang_profile import SglangProfile
from tokenext.tokenization import Stopwatch, Tokenized, tokenize
from tokenext.transformers_profile import TransformersProfile
from tokenext.vllm_profile import VllmProfile

PARTS_TEMPLATE = """\
{%- for m in messages %}[{{ m.role }}]{% if m.content is string %}{{ m.content }}
{%- else %}{% for p in m.content %}{{ p.text }}{% endfor %}{% endif %}{{ m | tojson }}{% endfor %}
{%- for d in documents or [] %}{{ d | tojson }}{% endfor %}{{ tools | tojson }}
{{- enable_thinking }}{{ foo }}"""
KINDS = {
    "dynamo": (DynamoProfile, Handoff.DYNAMO),
    "vllm": (VllmProfile, Handoff.VLLM),
    "sglang": (SglangProfile, Handoff.SGLANG),
    "transformers": (TransformersProfile, Handoff.NONE),
}
OWNED = {"prompt_token_ids", "input_ids", "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank"}
TOUCHED = OWNED | {"nvext", "kv_transfer_params"}
SECONDS = 10.0


@cache
def model(kind: str, source: str) -> Model:
    profile, handoff = KINDS[kind]
    # A template by a name of its own for requests with tools.
    templates = ChatTemplates(
        {"default": source, "tool_use": f"{source}{{{{ tools | tojson }}}}"}, now=lambda: datetime.now(UTC)
    )
    made = profile(templates, special_tokens={"eos_token": "<e>"}, template_kwargs={})
    return fake_model("m", aliases=("alias",), loras=("lora",), profile=made, handoff=handoff)


def run(model: Model, api: Api, body: JsonObject) -> Tokenized | None:
    try:
        return tokenize(model, parse(api, body), body, body_replaceable=True, watch=Stopwatch(Clock()))
    except Declined:
        return None


def is_sound(api: Api, body: dict[str, Any]) -> bool:
    """The least that a request must be before anybody may make ids of it."""
    if not isinstance(body.get("model"), str):
        return False
    if api is Api.COMPLETION:
        prompt = body.get("prompt")
        return isinstance(prompt, str) or (isinstance(prompt, list) and bool(prompt))
    messages = body.get("messages")
    return bool(messages) and all(
        message["role"] in set(Role) and isinstance(message.get("content"), str | list | None)
        for message in messages
    )


@pytest.mark.parametrize("source", [CHAT_TEMPLATE, PARTS_TEMPLATE], ids=["text", "parts"])
@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data(), requests)
def test_any_request_is_tokenized_soundly_or_left_alone(kind, source, data, request_):
    api, fields = request_
    text = data.draw(spelled(fields))
    began = time.process_time()
    try:
        body = read_body(text)
    except Declined:
        return
    done = run(model(kind, source), api, body)
    stripped = strip(body)
    assert time.process_time() - began < SECONDS
    if not TOUCHED & body.fields.keys():
        assert stripped is body.text
    if done is None:
        return
    assert is_sound(api, json.loads(text))
    assert len(done.record.token_ids) > 0
    assert done.record.engine_exact == (done.record.reason == "")
    if done.body is not None:
        assert done.record.engine_exact
        given_ids = {"prompt"} if (kind, api) == ("vllm", Api.COMPLETION) else set()
        before, after = read(text).fields, read(done.body).fields
        for name in before.keys() - TOUCHED - given_ids:
            assert bytes(after[name]) == bytes(before[name])
        assert after.keys() - before.keys() <= {"nvext", "kv_transfer_params", "input_ids"}
        assert done.record.token_ids.as_array().tolist() in ids_in(json.loads(done.body))


def ids_in(body: dict[str, Any]) -> list[Any]:
    return [
        (body.get("nvext") or {}).get("token_data"),
        (body.get("kv_transfer_params") or {}).get("prompt_token_ids"),
        body.get("input_ids"),
        body.get("prompt"),
    ]


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=12, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(megabytes)
def test_a_megabyte_of_one_character_is_tokenized_in_time(kind, request_):
    api, fields = request_
    body = read_body(json.dumps(fields).encode())
    began = time.process_time()
    done = run(model(kind, CHAT_TEMPLATE), api, body)
    assert time.process_time() - began < SECONDS
    if "\\u0000" not in bytes(body.text[:200]).decode():  # Dynamo drops them, down to an empty prompt
        assert done is not None
        assert len(done.record.token_ids) >= 1_000_000


@pytest.mark.parametrize("name", ["m", "alias", "lora"])
def test_every_name_of_a_model_gives_its_prompts(name):
    found = Catalog([model("vllm", CHAT_TEMPLATE)]).find(name)
    assert found is not None
    body = read_body(json.dumps({"model": name, "prompt": "x"}).encode())
    done = run(found, Api.COMPLETION, body)
    assert done is not None
    assert done.record.model == "m"


CHAT_FIELDS = [
    *("messages", "tools", "tool_choice", "documents", "chat_template_kwargs", "chat_template", "nvext"),
    *("reasoning_effort", "add_generation_prompt", "continue_final_message", "kv_transfer_params"),
    *("add_special_tokens", "truncate_prompt_tokens", "prompt_embeds", "made_up", "prompt_token_ids"),
]
MESSAGE_FIELDS = [
    "content",
    "name",
    "tool_calls",
    "tool_call_id",
    "reasoning",
    "reasoning_content",
    "refusal",
]
FORMS = {
    "a developer": lambda body: any(message["role"] == "developer" for message in body["messages"]),
    "parts": lambda body: any(isinstance(message.get("content"), list) for message in body["messages"]),
    "null content": lambda body: any(message.get("content", "") is None for message in body["messages"]),
    "a chosen tool": lambda body: (
        isinstance(body.get("tool_choice"), dict) and "function" in body["tool_choice"]
    ),
    "a list of texts": lambda body: isinstance(body["prompt"][1], str) and isinstance(body["prompt"], list),
    "ids": lambda body: isinstance(body["prompt"][1], int),
    "a list of ids": lambda body: isinstance(body["prompt"][0][0], int),
    "malformed arguments": lambda body: any(
        not is_json(call["function"]["arguments"])
        for message in body["messages"]
        for call in message.get("tool_calls") or ()
    ),
    **{f"the field {name}": lambda body, name=name: name in body for name in CHAT_FIELDS},
    **{
        f"the field {name} of a message": lambda body, name=name: any(name in m for m in body["messages"])
        for name in MESSAGE_FIELDS
    },
}


def test_the_strategy_makes_every_form_of_request():
    seen: set[str] = set()

    @settings(max_examples=600, deadline=None, phases=[Phase.generate], database=None, derandomize=True)
    @given(requests)
    def look(request_: tuple[Api, dict[str, Any]]) -> None:
        seen.update(form for form in FORMS.keys() - seen if has(FORMS[form], request_[1]))

    look()
    assert seen == set(FORMS)


def is_json(text: str) -> bool:
    try:
        json.loads(text)
    except ValueError:
        return False
    return True


def has(form: Callable[[dict[str, Any]], bool], body: dict[str, Any]) -> bool:
    try:
        return bool(form(body))
    except (KeyError, IndexError, TypeError, AttributeError):
        return False


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(list(Api)), st.binary(max_size=200))
def test_any_bytes_are_left_alone(api, text):
    try:
        body = read_body(text)
    except Declined:
        return
    assert run(model("vllm", CHAT_TEMPLATE), api, body) is None
