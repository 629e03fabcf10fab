"""Tokenization on demand: the records that ext_proc attaches, from the same pool, for several prompts."""

import asyncio
import json
import threading

import grpc
import pytest

from extproc import token_metadata
from extproc.events import Headers, RequestReady, StaticMetadata
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.pb.tokenext.v1.tokenization_pb2_grpc import TokenizationStub
from extproc.token_proto import from_proto
from extproc.tokenization import MAX_PROMPTS
from tests.tokenext.models import Clock, chat_body, fake_model
from tests.tokenext.rpc_ports import serving_rpc
from tokenext.block_hashes import DynamoHasher
from tokenext.callout import Callout, Prompt
from tokenext.catalog import Catalog
from tokenext.declined import SkipReason
from tokenext.engine import FakeEngine
from tokenext.exchange import ExchangeOptions, OnOversize, TokenizeExchange
from tokenext.observer import Outcome, RecordingObserver
from tokenext.pool import TokenizationPool

CHAT = "/v1/chat/completions"
TRACEPARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
COMPLETION = "/v1/completions"


class GatedEngine(FakeEngine):
    """Encodes when it is let."""

    def __init__(self) -> None:
        self.gate = threading.Event()

    def encode(self, text, *, add_special_tokens, isolation=""):
        self.gate.wait(10)
        return super().encode(text, add_special_tokens=add_special_tokens)


class Bench:
    def __init__(self) -> None:
        self.observer = RecordingObserver()
        self.pool = TokenizationPool(workers=1, max_queued=8, deadline_seconds=30)
        self.slow = GatedEngine()
        self.catalog = Catalog([fake_model("m", aliases=("alias",)), fake_model("slow", engine=self.slow)])
        self.callout = Callout(
            catalog=lambda: self.catalog,
            pool=self.pool,
            observer=self.observer,
            clock=Clock(),
            max_body_bytes=1000,
        )

    async def one(self, prompt: Prompt, **options):
        (answer,) = await self.callout.answer([prompt], **options)
        return answer


@pytest.fixture
def bench():
    bench = Bench()
    yield bench
    bench.slow.gate.set()
    bench.pool.close()


def body(**fields) -> bytes:
    return json.dumps(chat_body(**fields)).encode()


@pytest.mark.parametrize(
    ("path", "text"), [(CHAT, body()), (COMPLETION, b'{"model": "alias", "prompt": "Once upon"}')]
)
async def test_a_prompt_gets_the_record_that_ext_proc_would_attach(bench, path, text):
    exchange = TokenizeExchange(
        catalog=lambda: bench.catalog,
        pool=bench.pool,
        observer=bench.observer,
        options=ExchangeOptions("tokenext", OnOversize.PASS),
        clock=Clock(),
    )
    headers = Headers({":method": "POST", ":path": path})
    verdict = await exchange.decide(RequestReady(headers, text, StaticMetadata(), body_replaceable=True))
    attached = token_metadata.decode(verdict.metadata["tokenext"]["record"])
    assert await bench.one(Prompt(f"{path}?stream=1", text)) == attached


async def test_prompts_are_answered_in_their_order_and_fail_alone(bench):
    answers = await bench.callout.answer(
        [Prompt(CHAT, body()), Prompt(CHAT, b"{"), Prompt("/v1/embeddings", body()), Prompt(CHAT, body())]
    )
    assert answers[0] == answers[3]
    assert answers[1:3] == [SkipReason.INVALID_JSON, SkipReason.NOT_OPENAI_PATH]


@pytest.mark.parametrize(
    ("prompt", "reason"),
    [
        (Prompt(CHAT, b""), SkipReason.NO_BODY),
        (Prompt(CHAT, b"x" * 1001), SkipReason.OVERSIZE),
        (Prompt(CHAT, body(model="other")), SkipReason.UNKNOWN_MODEL),
        (Prompt(CHAT, body(), model="other"), SkipReason.UNKNOWN_MODEL),
        (Prompt("", body()), SkipReason.NOT_OPENAI_PATH),
    ],
)
async def test_what_cannot_be_tokenized_says_why(bench, prompt, reason):
    assert await bench.one(prompt) is reason
    (record,) = bench.observer.records
    assert (record.outcome, record.reason) == (Outcome.PASSED, reason)


async def test_a_model_given_beside_the_body_takes_the_place_of_the_bodys_own(bench):
    assert (await bench.one(Prompt(CHAT, body(model="other"), model="alias"))).model == "m"


async def test_every_prompt_is_reported_with_its_tokens(bench):
    record = await bench.one(Prompt(CHAT, body()))
    (reported,) = bench.observer.records
    assert (reported.outcome, reported.model) == (Outcome.TOKENIZED, "m")
    assert reported.prompt_tokens == len(record.token_ids)


async def test_what_is_late_is_declined_and_gives_its_place_back(bench):
    assert await bench.one(Prompt(CHAT, body(model="slow")), deadline_seconds=0.02) is SkipReason.DEADLINE
    bench.slow.gate.set()
    assert (await bench.one(Prompt(CHAT, body()), deadline_seconds=5)).model == "m"


async def test_a_caller_who_leaves_gives_all_places_back(bench):
    asking = asyncio.ensure_future(bench.callout.answer([Prompt(CHAT, body(model="slow"))] * 4))
    await asyncio.sleep(0.02)
    assert bench.pool.held == 4
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    bench.slow.gate.set()
    async with asyncio.timeout(5):
        while bench.pool.held:  # noqa: ASYNC110  # the pool's threads tell nobody
            await asyncio.sleep(0.001)
    assert [record.reason for record in bench.observer.records] == [SkipReason.CANCELLED] * 4


async def test_the_model_that_is_asked_for_in_the_bodys_place_is_whose_block_hashes_there_are(bench):
    bench.catalog = Catalog([fake_model("m", loras=("poet",), block_hasher=DynamoHasher(4))])
    named, replaced = [
        (await bench.one(Prompt(CHAT, body(model=name), model))).block_hashes
        for name, model in (("poet", ""), ("m", "poet"))
    ]
    plain = (await bench.one(Prompt(CHAT, body(model="poet"), "m"))).block_hashes
    assert named == replaced != plain


async def test_a_prompt_that_wants_no_block_hashes_has_none(bench):
    bench.catalog = Catalog([fake_model("m", block_hasher=DynamoHasher(4))])
    assert (await bench.one(Prompt(CHAT, body(), block_hashes=False))).block_hashes is None


async def test_the_rpc_answers_each_prompt_with_a_record_or_a_reason(bench, tmp_path):
    async with serving_rpc(bench.callout, f"unix:{tmp_path}/s") as channel:
        request = pb.TokenizeRequest(
            prompts=[pb.Prompt(path=CHAT, body=body()), pb.Prompt(path=CHAT, body=b"[]")]
        )
        call = TokenizationStub(channel).Tokenize(request, metadata=(("traceparent", TRACEPARENT),))
        first, second = (await call).results
    assert from_proto(first.record) == await bench.one(Prompt(CHAT, body()))
    assert first.record.token_count * 4 == len(first.record.token_ids) > 0
    assert first.skip_reason == ""
    assert not second.HasField("record")
    assert second.skip_reason == "invalid_json"
    assert [each.traceparent for each in bench.observer.records] == [TRACEPARENT, TRACEPARENT, ""]


@pytest.mark.parametrize("count", [0, MAX_PROMPTS + 1])
async def test_a_call_without_prompts_or_with_too_many_is_refused(bench, count):
    request = pb.TokenizeRequest(prompts=[pb.Prompt(path=CHAT, body=body())] * count)
    async with serving_rpc(bench.callout) as channel:
        with pytest.raises(grpc.aio.AioRpcError, match=f"1 to 64 prompts, this one {count}") as caught:
            await TokenizationStub(channel).Tokenize(request)
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_calls_deadline_is_heeded_and_what_was_done_by_then_is_answered(bench):
    request = pb.TokenizeRequest(
        prompts=[pb.Prompt(path=CHAT, body=body(model=model)) for model in ("m", "slow")]
    )
    async with serving_rpc(bench.callout) as channel:
        answer = await TokenizationStub(channel).Tokenize(request, timeout=0.5)
    assert answer.results[0].record.model == "m"
    assert answer.results[1].skip_reason == "deadline"


async def test_a_caller_that_cancels_stops_the_work(bench):
    request = pb.TokenizeRequest(prompts=[pb.Prompt(path=CHAT, body=body(model="slow"))] * 3)
    async with serving_rpc(bench.callout) as channel:
        call = TokenizationStub(channel).Tokenize(request)
        async with asyncio.timeout(5):
            while bench.pool.held < 3:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)
            call.cancel()
            while len(bench.observer.records) < 3:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)
    assert {record.reason for record in bench.observer.records} == {"cancelled"}
