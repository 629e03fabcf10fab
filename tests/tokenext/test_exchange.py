import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest

from extproc import token_metadata
from extproc.errors import BodyTooLargeError
from extproc.events import Headers, RequestReady, ResponseTrailers, StaticMetadata, Termination
from extproc.token_metadata import TokenIds
from extproc.verdict import NO_EDIT, PASS, Verdict
from tests.tokenext.models import Clock, chat_body, fake_model
from tokenext.catalog import EMPTY_CATALOG, Catalog
from tokenext.engine import FakeEngine
from tokenext.exchange import ExchangeOptions, OnOversize, TokenizeExchange
from tokenext.handoff import Handoff
from tokenext.observer import ExchangeRecord, Outcome, RecordingObserver, Stage
from tokenext.pool import TokenizationPool

CHAT = "/v1/chat/completions"
REQUEST_ID = "0a1b2c3d-0000-4000-8000-1234567890ab"


class Bench:
    """An exchange with its surroundings."""

    def __init__(self) -> None:
        self.observer = RecordingObserver()
        self.pool = TokenizationPool(workers=1, max_queued=4, deadline_seconds=30)
        self.catalog = Catalog(
            [fake_model("m", aliases=("alias",)), fake_model("routed", handoff=Handoff.NONE)]
        )
        self.options = ExchangeOptions("tokenext", OnOversize.PASS)

    async def decide(self, request: RequestReady) -> Verdict:
        return await self.exchange().decide(request)

    def exchange(self) -> TokenizeExchange:
        return TokenizeExchange(
            catalog=lambda: self.catalog,
            pool=self.pool,
            observer=self.observer,
            options=self.options,
            clock=Clock(),
        )

    @property
    def record(self) -> ExchangeRecord:
        (record,) = self.observer.records
        return record


@pytest.fixture
def bench() -> Iterator[Bench]:
    bench = Bench()
    yield bench
    bench.pool.close()


def post(
    body: object, path: str = CHAT, *, method: str = "POST", request_id: str = REQUEST_ID
) -> RequestReady:
    headers = Headers({":method": method, ":path": path, "x-request-id": request_id})
    text = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    return RequestReady(headers, text, StaticMetadata(), body_replaceable=True)


async def test_responses_are_left_alone(bench):
    exchange = bench.exchange()
    assert exchange.edit(ResponseTrailers()) is NO_EDIT
    await exchange.observe(ResponseTrailers())
    await exchange.close(Termination.ENDED)


async def test_a_chat_gets_its_record_and_its_ids(bench):
    verdict = await bench.decide(post(chat_body()))
    record = token_metadata.decode(verdict.metadata["tokenext"]["record"])
    assert record.model == "m"
    assert json.loads(verdict.body)["nvext"]["token_data"] == record.token_ids.as_array().tolist()
    told = bench.record
    assert (told.model, told.outcome, told.reason) == ("m", Outcome.TOKENIZED, "")
    assert told.engine_exact
    assert told.handed_off
    assert told.prompt_tokens == len(record.token_ids)
    assert told.request_id == REQUEST_ID
    assert told.seconds == dict.fromkeys(Stage, 1.0)


async def test_a_completion_by_alias_is_tokenized_under_the_catalogs_name(bench):
    verdict = await bench.decide(post({"model": "alias", "prompt": "hi"}, "/v1/completions?x=1"))
    record = token_metadata.decode(verdict.metadata["tokenext"]["record"])
    assert record.model == "m"
    assert record.token_ids.as_array().tolist() == [256, *b"hi"]


def with_headers(request: RequestReady, lines: int) -> RequestReady:
    return replace(request, headers=Headers(dict(request.headers), lines))


async def test_a_request_with_as_many_headers_as_allowed_is_tokenized(bench):
    assert (await bench.decide(with_headers(post(chat_body()), 256))).metadata


async def test_a_request_with_more_headers_passes_without_a_record_and_says_why(bench):
    verdict = await bench.decide(with_headers(post(chat_body()), 257))
    assert verdict is PASS
    assert (bench.record.outcome, bench.record.reason) == (Outcome.PASSED, "too_many_headers")


async def test_more_headers_bring_no_ids_of_a_clients_past_us(bench):
    body = chat_body(nvext={"token_data": [1, 2]}, prompt_token_ids=[3])
    verdict = await bench.decide(with_headers(post(body), 1000))
    left = json.loads(verdict.body)
    assert "token_data" not in left["nvext"]
    assert "prompt_token_ids" not in left
    assert verdict.metadata == {}


async def test_the_namespace_is_configurable(bench):
    bench.options = replace(bench.options, metadata_namespace="envoy.lb")
    assert list((await bench.decide(post(chat_body()))).metadata) == ["envoy.lb"]


async def test_a_model_without_hand_off_leaves_the_body_alone(bench):
    verdict = await bench.decide(post(chat_body(model="routed")))
    assert verdict.metadata
    assert verdict.body is None
    assert not bench.record.handed_off


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (post(chat_body(), "/v1/models"), "not_openai_path"),
        (post(chat_body(), "/v1/chat/completions/"), "not_openai_path"),
        (post(chat_body(), "/v1/responses"), "not_openai_path"),
        (post(None, method="GET"), "not_openai_path"),
        (post(b""), "no_body"),
        (post(None), "no_body"),
        (post(b"{nonsense"), "invalid_json"),
        (post(b"\x1f\x8b\x08gzip"), "invalid_json"),
        (post([1]), "invalid_json"),
        (post(b'{"model":"m","messages":[{"role":"user","content":"\\ud800"}]}'), "invalid_json"),
        (post(chat_body(messages=[])), "bad_request_shape"),
        (post({"model": "m"}), "bad_request_shape"),
        (post({"model": 3, "messages": [{"role": "user", "content": "hi"}]}), "bad_request_shape"),
        (post(chat_body(messages="hi")), "bad_request_shape"),
        (post(chat_body(messages=[{"role": "critic", "content": "hi"}])), "bad_request_shape"),
        (post(chat_body(messages=[{"role": "user", "content": 3}])), "bad_request_shape"),
        (post(chat_body(tools={})), "bad_request_shape"),
        (post({"model": "m", "prompt": {}}, "/v1/completions"), "bad_request_shape"),
        (post(chat_body(model="unheard")), "unknown_model"),
        (post(chat_body(messages=[{"role": "user", "content": [{"type": "image_url"}]}])), "multimodal"),
        (post({"model": "m", "prompt": ["a", "b"]}, "/v1/completions"), "prompt_list"),
        (post(chat_body(messages=[{"role": "user"}], continue_final_message=True)), "bad_request_shape"),
    ],
)
async def test_what_cannot_be_tokenized_passes_untouched_with_a_reason(bench, request_, reason):
    assert await bench.decide(request_) is PASS
    assert (bench.record.outcome, bench.record.reason) == (Outcome.PASSED, reason)


async def test_a_clients_model_name_never_becomes_a_label(bench):
    await bench.decide(post(chat_body(model="unheard")))
    assert bench.record.model == "other"


@pytest.mark.parametrize("request_id", ["", "id of my own", REQUEST_ID + "\n", "0a1b2c3d"])
async def test_a_request_id_that_is_no_uuid_is_not_kept(bench, request_id):
    await bench.decide(post(chat_body(), request_id=request_id))
    assert bench.record.request_id == ""


async def test_an_oversize_body_passes(bench):
    request = replace(post(None), oversize=True)
    assert await bench.decide(request) is PASS
    assert bench.record.reason == "oversize"


async def test_an_oversize_body_is_refused_where_so_configured(bench):
    bench.options = replace(bench.options, on_oversize=OnOversize.REJECT)
    with pytest.raises(BodyTooLargeError):
        await bench.decide(replace(post(None), oversize=True))
    assert (bench.record.outcome, bench.record.reason) == (Outcome.REJECTED, "request_too_large")


async def test_an_oversize_body_of_another_path_is_nobodys_business(bench):
    bench.options = replace(bench.options, on_oversize=OnOversize.REJECT)
    assert await bench.decide(replace(post(None, "/upload"), oversize=True)) is PASS


class TestForgedFields:
    FORGED = {"nvext": {"token_data": [1], "dp_rank": 3, "agent_hints": {}}}  # noqa: RUF012

    @pytest.mark.parametrize("path", [CHAT, "/v1/completions", "/v1/responses", "/v1/messages"])
    async def test_they_are_removed_even_where_nothing_is_tokenized(self, bench, path):
        verdict = await bench.decide(post({"model": "unheard", **self.FORGED}, path))
        assert json.loads(verdict.body) == {"model": "unheard", "nvext": {"agent_hints": {}}}
        assert verdict.metadata == {}

    async def test_they_are_removed_where_ids_are_only_routed_by(self, bench):
        verdict = await bench.decide(
            post(chat_body(model="routed", kv_transfer_params={"prompt_token_ids": [1]}))
        )
        assert json.loads(verdict.body)["kv_transfer_params"] == {}
        assert verdict.metadata

    async def test_they_give_way_to_ours(self, bench):
        verdict = await bench.decide(post(chat_body(**self.FORGED)))
        nvext = json.loads(verdict.body)["nvext"]
        assert nvext["token_data"] != [1]
        assert set(nvext) == {"token_data", "agent_hints"}

    async def test_a_body_that_must_stay_stays(self, bench):
        verdict = await bench.decide(replace(post(chat_body(**self.FORGED)), body_replaceable=False))
        assert verdict.body is None


async def test_a_full_queue_lets_the_request_pass(bench):
    bench.pool.close()
    assert await bench.decide(post(chat_body())) is PASS
    assert bench.record.reason == "queue_full"
    assert bench.record.model == "m"


class Gated(FakeEngine):
    """Encodes when it is let to."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.entered = threading.Event()

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        self.entered.set()
        self.gate.wait()
        return super().encode(text, add_special_tokens=add_special_tokens)


async def test_a_request_past_its_deadline_passes_untokenized(bench):
    engine = Gated()
    bench.catalog = Catalog([fake_model("m", engine=engine)])
    bench.pool = TokenizationPool(workers=1, max_queued=1, deadline_seconds=0.02)
    verdict = await bench.decide(post(chat_body()))
    engine.gate.set()
    assert verdict is PASS
    assert bench.record.reason == "deadline"
    assert Stage.ENCODE not in bench.record.seconds


async def test_a_client_that_leaves_is_told_of_once(bench):
    engine = Gated()
    bench.catalog = Catalog([fake_model("m", engine=engine)])
    task = asyncio.create_task(bench.decide(post(chat_body())))
    await asyncio.to_thread(engine.entered.wait, 5)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    engine.gate.set()
    assert (bench.record.outcome, bench.record.reason) == (Outcome.PASSED, "cancelled")


async def test_a_request_sees_the_catalog_of_its_moment(bench):
    exchange = bench.exchange()
    bench.catalog = EMPTY_CATALOG
    assert await exchange.decide(post(chat_body())) is PASS
    assert bench.record.reason == "unknown_model"
