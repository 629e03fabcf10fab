import json

import pytest

from extproc import token_metadata
from extproc.token_metadata import Kind, TokenIds
from tests.tokenext.models import Clock, InexactProfile, chat_body, fake_model
from tokenext.catalog import Model
from tokenext.declined import Declined, SkipReason
from tokenext.engine import EngineError, FakeEngine
from tokenext.handoff import Handoff
from tokenext.observer import Stage
from tokenext.openai import Api, parse, read_body
from tokenext.profiles import InexactReason
from tokenext.tokenization import Stopwatch, Tokenized, tokenize

RENDERED = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def run(
    model: Model, body: dict, *, api: Api = Api.CHAT, replaceable: bool = True, watch: Stopwatch | None = None
) -> Tokenized:
    parsed = read_body(json.dumps(body).encode())
    watch = watch or Stopwatch(Clock())
    return tokenize(model, parse(api, parsed), parsed, body_replaceable=replaceable, watch=watch)


def declined(model: Model, body: dict, *, api: Api = Api.CHAT) -> SkipReason:
    with pytest.raises(Declined) as caught:
        run(model, body, api=api)
    return caught.value.reason


def test_a_chat_becomes_a_record_of_its_rendered_prompt():
    done = run(fake_model("m"), chat_body())
    assert bytes(done.record.token_ids.as_array().tolist()).decode() == RENDERED
    assert done.record.kind is Kind.CHAT
    assert done.record.engine_exact
    assert token_metadata.decode(done.metadata) == done.record


def test_a_completion_becomes_a_record_of_its_prompt():
    done = run(fake_model("m"), {"model": "m", "prompt": "hi"}, api=Api.COMPLETION)
    assert done.record.token_ids.as_array().tolist() == [FakeEngine.BEGINNING, *b"hi"]
    assert done.record.kind is Kind.COMPLETION


def test_the_record_names_the_catalogs_model_not_the_clients_spelling():
    assert run(fake_model("m", aliases=("alias",)), chat_body(model="alias")).record.model == "m"


def test_exact_ids_are_handed_over():
    body = json.loads(run(fake_model(), chat_body()).body or b"")
    assert body == {**chat_body(), "nvext": {"token_data": list(RENDERED.encode())}}


def test_ids_that_are_not_proved_are_recorded_with_a_reason_and_not_handed_over():
    done = run(fake_model(profile=InexactProfile()), chat_body())
    assert not done.record.engine_exact
    assert done.record.reason == "template_clock"
    assert done.body is None


def test_a_model_in_doubt_is_routed_by_its_ids_and_hands_none_over():
    done = run(fake_model(doubt=InexactReason.PARITY), chat_body())
    assert (done.record.engine_exact, done.record.reason) == (False, "parity")
    assert done.record.token_ids.as_array().tolist() == list(RENDERED.encode())
    assert done.body is None


def test_nothing_is_handed_over_where_the_body_must_stay_or_the_model_wants_none():
    assert run(fake_model(), chat_body(), replaceable=False).body is None
    assert run(fake_model(handoff=Handoff.NONE), chat_body()).body is None


def test_a_prompt_of_the_models_length_fits_and_a_longer_one_does_not():
    assert run(fake_model(max_length=len(RENDERED)), chat_body())
    assert declined(fake_model(max_length=len(RENDERED) - 1), chat_body()) is SkipReason.OVER_LENGTH


def test_a_prompt_without_ids_is_declined():
    model = fake_model(profile=InexactProfile())
    assert declined(model, {"model": "m", "prompt": ""}, api=Api.COMPLETION) is SkipReason.EMPTY_PROMPT


def test_an_engines_failure_is_declined():
    class Failing(FakeEngine):
        def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
            raise EngineError("no")

    assert declined(fake_model(engine=Failing()), chat_body()) is SkipReason.ENGINE_FAILED


def test_every_stage_is_timed_on_its_own():
    watch = Stopwatch(Clock())
    run(fake_model(), chat_body(), watch=watch)
    stages = [Stage.QUEUE, Stage.RENDER, Stage.ENCODE, Stage.RECORD, Stage.HANDOFF]
    assert watch.taken() == dict.fromkeys(stages, 1.0)
