import json

import pytest

from tests.tokenext.models import fake_model
from tokenext.openai import Api
from tokenext.oracle import FakeOracle, Refusal
from tokenext.probe_corpus import PROBES
from tokenext.verification import verify


def test_probes_are_numbered_from_one_and_have_names_of_their_own():
    assert [probe.number for probe in PROBES] == list(range(1, len(PROBES) + 1))
    assert len({probe.name for probe in PROBES}) == len(PROBES)


@pytest.mark.parametrize("probe", PROBES, ids=lambda probe: probe.name)
def test_every_probe_is_a_small_request_in_json(probe):
    body = probe.body("the model")
    assert body.isascii()
    document = json.loads(body)
    assert document["model"] == "the model"
    assert document["max_tokens"] == 1
    assert ("prompt" in document) is (probe.api is Api.COMPLETION)
    assert len(body) < 10_000


def test_the_corpus_covers_what_prompts_are_known_to_differ_by():
    texts = json.dumps([probe.fields for probe in PROBES])
    for field in (
        *("system", "developer", "tools", "tool_choice", "tool_calls", "tool_call_id", "name", "documents"),
        *("reasoning_content", "reasoning_effort", "enable_thinking", "chat_template_args"),
        *("add_generation_prompt", "continue_final_message", "add_special_tokens"),
        *('"type": "text"', '"content": null', "\\u0000", "\\ud83d b", "<|im_start|>"),
    ):
        assert field in texts, field


async def test_no_probe_is_too_much_for_us():
    report = await verify(fake_model(), FakeOracle(lambda api, body: Refusal(400)), PROBES, engine_model="m")
    assert len(report.results) == len(PROBES)
