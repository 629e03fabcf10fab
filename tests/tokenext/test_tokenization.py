import json
from dataclasses import replace
from datetime import datetime

import pytest

from extproc import token_metadata
from extproc.token_metadata import Kind, TokenIds
from tests.tokenext.models import Clock, InexactProfile, chat_body, fake_model
from tokenext.block_hashes import DynamoHasher
from tokenext.catalog import Model
from tokenext.chat_template import ChatTemplates
from tokenext.declined import Declined, SkipReason
from tokenext.engine import EngineError, FakeEngine
from tokenext.handoff import Handoff
from tokenext.observer import Stage
from tokenext.openai import Api, CompletionRequest, parse, read_body
from tokenext.profiles import InexactReason, PlainProfile, Prompt, prompt_of
from tokenext.tokenization import Stopwatch, Tokenized, tokenize

RENDERED = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"


def run(
    model: Model,
    body: dict,
    *,
    api: Api = Api.CHAT,
    replaceable: bool = True,
    watch: Stopwatch | None = None,
    hashed_for: str | None = None,
) -> Tokenized:
    parsed = read_body(json.dumps(body).encode())
    watch = watch or Stopwatch(Clock())
    return tokenize(
        model,
        parse(api, parsed),
        parsed,
        body_replaceable=replaceable,
        watch=watch,
        hashed_for=hashed_for,
    )


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


def test_a_record_has_block_hashes_where_the_model_wants_them_and_they_travel_with_it():
    model = fake_model("m", block_hasher=DynamoHasher(4), loras=("poet",))
    plain, adapted = (run(model, chat_body(), hashed_for=name) for name in ("m", "poet"))
    ids = plain.record.token_ids
    assert plain.record.block_hashes == DynamoHasher(4).hashes(ids, cache_salt="", lora="")
    assert adapted.record.block_hashes == DynamoHasher(4).hashes(ids, cache_salt="", lora="poet")
    assert token_metadata.decode(plain.metadata) == plain.record
    assert run(model, chat_body()).record.block_hashes is None
    assert run(fake_model("m"), chat_body(), hashed_for="m").record.block_hashes is None


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


def test_a_prompt_longer_than_the_model_takes_is_routed_by_and_not_handed_over():
    fits = run(fake_model(max_length=len(RENDERED)), chat_body())
    assert fits.record.engine_exact
    longer = run(fake_model(max_length=len(RENDERED) - 1), chat_body())
    assert (longer.record.engine_exact, longer.record.reason) == (False, "over_length")
    assert len(longer.record.token_ids) == len(RENDERED)
    assert longer.body is None


def test_a_clients_own_ids_are_recorded_and_left_where_they_are():
    done = run(fake_model(), {"model": "m", "prompt": [7, 8]}, api=Api.COMPLETION)
    assert done.record.token_ids == TokenIds.pack([7, 8])
    assert done.record.engine_exact
    assert done.body is None


class Truncating(PlainProfile):
    """As vLLM does, the request says how much stays."""

    def completion(self, request: CompletionRequest) -> Prompt:
        return prompt_of(request, inexact=None, truncation=request.truncation)


class TestTruncation:
    def ids(self, model: Model | None = None, **fields: object) -> tuple[list[int], str]:
        model = model or fake_model()
        model = replace(model, profile=Truncating(ChatTemplates({}, now=datetime.now), {}))
        record = run(model, {"model": "m", "prompt": "abcdef", **fields}, api=Api.COMPLETION).record
        return record.token_ids.as_array().tolist(), record.reason

    BARE = {"add_special_tokens": False}  # noqa: RUF012

    def test_the_last_tokens_stay_unless_another_side_is_named(self):
        assert self.ids(truncate_prompt_tokens=2, **self.BARE) == ([*b"ef"], "")
        assert self.ids(truncate_prompt_tokens=2, truncation_side="left", **self.BARE) == ([*b"ef"], "")
        assert self.ids(truncate_prompt_tokens=2, truncation_side="right", **self.BARE) == ([*b"ab"], "")
        assert self.ids(prompt=[1, 2, 3], truncate_prompt_tokens=2) == ([2, 3], "")

    def test_a_short_prompt_stays_whole(self):
        assert self.ids(truncate_prompt_tokens=7) == ([256, *b"abcdef"], "")

    def test_special_tokens_that_the_tokenizer_would_spare_make_it_unclear(self):
        assert self.ids(truncate_prompt_tokens=2) == ([256, *b"abcdef"], "truncation")
        assert self.ids(truncate_prompt_tokens=2, truncation_side="left") == ([*b"ef"], "")

    def test_as_many_as_the_model_takes_is_clear_only_where_nothing_is_cut(self):
        assert self.ids(truncate_prompt_tokens=-1)[1] == "truncation"
        assert self.ids(fake_model(max_length=8), truncate_prompt_tokens=-1)[1] == ""
        assert self.ids(fake_model(max_length=7), truncate_prompt_tokens=-1)[1] == "truncation"


def test_a_prompt_without_ids_is_declined():
    model = fake_model(profile=InexactProfile())
    assert declined(model, {"model": "m", "prompt": ""}, api=Api.COMPLETION) is SkipReason.EMPTY_PROMPT


def test_an_engines_failure_is_declined():
    class Failing(FakeEngine):
        def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
            raise EngineError("no")

    assert declined(fake_model(engine=Failing()), chat_body()) is SkipReason.ENGINE_FAILED


def test_half_a_surrogate_pair_that_only_the_template_brings_is_no_failure_of_the_engine():
    class Halving(PlainProfile):
        def __init__(self) -> None:
            pass

        def chat(self, request: object) -> Prompt:
            return Prompt("a\ud800", add_special_tokens=False)

    assert declined(fake_model(profile=Halving()), chat_body()) is SkipReason.INVALID_JSON


@pytest.mark.parametrize(
    ("api", "body"), [(Api.CHAT, chat_body()), (Api.COMPLETION, {"model": "m", "prompt": "hi"})]
)
def test_the_engine_is_told_whom_a_prompt_may_help(api, body):
    class Told(FakeEngine):
        def __init__(self) -> None:
            self.isolations: list[str] = []

        def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
            self.isolations.append(isolation)
            return super().encode(text, add_special_tokens=add_special_tokens)

    engine = Told()
    run(fake_model(engine=engine), body, api=api)
    run(fake_model(engine=engine), {**body, "cache_salt": "tenant-1"}, api=api)
    run(fake_model(engine=engine), {**body, "cache_salt": None}, api=api)
    assert engine.isolations == ["", "tenant-1", ""]


def test_every_stage_is_timed_on_its_own():
    watch = Stopwatch(Clock())
    run(fake_model(), chat_body(), watch=watch)
    stages = [Stage.QUEUE, Stage.RENDER, Stage.ENCODE, Stage.RECORD, Stage.HANDOFF]
    assert watch.taken() == dict.fromkeys(stages, 1.0)
