"""The seam to whoever tokenizes on demand: one contract over the fake and over a real service on loopback."""

import asyncio
import math
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

import grpc
import pytest

from extproc.client_tls import ClientTls
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.tls import TlsOptions
from extproc.token_metadata import TokenRecord
from extproc.token_proto import to_proto
from extproc.tokenization import (
    MAX_PROMPTS,
    UNREADABLE,
    FakeTokenization,
    NoRecord,
    Prompt,
    TokenizationError,
    TokenizationFault,
)
from extproc.tokenization_client import TokenizationClient
from tests.extproc.certificates import NAME, Files, Issued
from tests.extproc.tokenization_peer import RECORD, Peer, serving
from tests.tokenext.models import Clock, fake_model
from tokenext import tokenize_service
from tokenext.callout import Callout
from tokenext.catalog import Catalog
from tokenext.observer import RecordingObserver
from tokenext.pool import TokenizationPool

COMPLETION = "/v1/completions"
PROMPT = Prompt(COMPLETION, b'{"model": "m", "prompt": "Once upon a time"}')
LONGER = Prompt(f"{COMPLETION}?stream=1", b'{"model": "m", "prompt": "Once upon a time, long ago"}')
BODYLESS = Prompt(COMPLETION, b"")


@asynccontextmanager
async def tokenext_service(address):
    """tokenext's own servicer, with one model."""
    pool = TokenizationPool(workers=1, max_queued=MAX_PROMPTS, deadline_seconds=30)
    callout = Callout(
        catalog=lambda: Catalog([fake_model("m", aliases=("alias",))]),
        pool=pool,
        observer=RecordingObserver(),
        clock=Clock(),
        max_body_bytes=1000,
    )
    try:
        async with serving(partial(tokenize_service.register, callout), address):
            yield
    finally:
        pool.close()


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/tokenext.sock"


class TokenizationContract:
    async def test_each_prompt_has_its_answer_in_order_and_fails_alone(self, tokenization):
        short, none, long = await tokenization.tokenize([PROMPT, BODYLESS, LONGER], deadline_seconds=5)
        assert none == NoRecord("no_body")
        assert isinstance(short, TokenRecord)
        assert isinstance(long, TokenRecord)
        assert 0 < len(short.token_ids) < len(long.token_ids)
        assert [short] == await tokenization.tokenize([PROMPT], deadline_seconds=5)

    async def test_a_call_carries_as_many_prompts_as_there_may_be_and_no_more(self, tokenization):
        answers = await tokenization.tokenize([PROMPT] * MAX_PROMPTS, deadline_seconds=5)
        assert [type(each) for each in answers] == [TokenRecord] * MAX_PROMPTS
        for count in (0, MAX_PROMPTS + 1):
            with pytest.raises(ValueError, match=f"1 to 64 prompts, this one {count}"):
                await tokenization.tokenize([PROMPT] * count, deadline_seconds=5)

    @pytest.mark.parametrize("no_deadline", [math.inf, math.nan])
    async def test_without_a_deadline_nothing_is_asked(self, tokenization, no_deadline):
        with pytest.raises(ValueError, match="deadline"):
            await tokenization.tokenize([PROMPT], deadline_seconds=no_deadline)

    @pytest.mark.parametrize("left", [0, -1.5])
    async def test_a_deadline_that_has_passed_is_one(self, tokenization, left):
        with pytest.raises(TokenizationError) as caught:
            await tokenization.tokenize([PROMPT], deadline_seconds=left)
        assert caught.value.fault is TokenizationFault.DEADLINE

    async def test_a_call_that_brings_nothing_is_one_typed_error(self, failing):
        with pytest.raises(TokenizationError) as caught:
            await failing.tokenize([PROMPT, PROMPT], deadline_seconds=5)
        assert caught.value.fault is TokenizationFault.UNAVAILABLE


class TestFake(TokenizationContract):
    @pytest.fixture
    def tokenization(self):
        return FakeTokenization()

    @pytest.fixture
    def failing(self):
        return FakeTokenization(TokenizationError(TokenizationFault.UNAVAILABLE, "no"))


class TestClientOfTokenext(TokenizationContract):
    @pytest.fixture
    async def tokenization(self, address):
        async with tokenext_service(address), TokenizationClient(address) as client:
            yield client

    @pytest.fixture
    async def failing(self, tmp_path):
        async with TokenizationClient(f"unix:{tmp_path}/nobody") as client:
            yield client

    async def test_a_model_beside_the_body_takes_the_place_of_the_bodys_own(self, tokenization):
        body = b'{"model": "other", "prompt": "Once"}'
        asked = [Prompt(COMPLETION, body, model="alias"), Prompt(COMPLETION, body)]
        known, unknown = await tokenization.tokenize(asked, deadline_seconds=5)
        assert known.model == "m"
        assert unknown == NoRecord("unknown_model")


@pytest.fixture
async def peer(address):
    peer = Peer()
    async with serving(peer.register, address):
        yield peer


@pytest.fixture
async def client(peer, address):
    async with TokenizationClient(address) as client:
        yield client


async def fault_of(client, *, deadline_seconds=5):
    with pytest.raises(TokenizationError) as caught:
        await client.tokenize([PROMPT], deadline_seconds=deadline_seconds)
    return caught.value.fault


async def test_prompts_travel_as_they_are_and_records_come_back_whole(client, peer):
    prompt = Prompt("/v1/chat/completions", b'{"model": "\xff"}', "m")
    assert await client.tokenize([prompt], deadline_seconds=5) == [RECORD]
    assert [(each.path, each.body, each.model) for each in peer.asked] == [
        (prompt.path, prompt.body, prompt.model)
    ]


async def test_a_body_above_grpcs_default_limit_travels(client, peer):
    await client.tokenize([Prompt(COMPLETION, b"x" * 10_000_000)], deadline_seconds=30)
    assert len(peer.asked[0].body) == 10_000_000


async def test_a_record_that_is_not_to_be_trusted_takes_no_other_along(client, peer):
    good, bad = (
        pb.PromptResult(record=to_proto(RECORD)),
        pb.PromptResult(record={"kind": 1, "token_count": 7}),
    )
    peer.answer = pb.TokenizeResponse(results=[good, bad])
    assert await client.tokenize([PROMPT] * 2, deadline_seconds=5) == [RECORD, NoRecord(UNREADABLE)]


@pytest.mark.parametrize("results", [0, 2])
async def test_another_number_of_answers_than_of_prompts_is_a_failure(client, peer, results):
    peer.answer = pb.TokenizeResponse(results=[pb.PromptResult(record=to_proto(RECORD))] * results)
    assert await fault_of(client) is TokenizationFault.FAILED


async def test_an_error_of_the_peer_is_a_failure(client, peer):
    peer.code = grpc.StatusCode.RESOURCE_EXHAUSTED
    assert await fault_of(client) is TokenizationFault.FAILED


async def test_a_late_answer_is_a_deadline(client, peer):
    peer.seconds = 5
    started = time.monotonic()
    assert await fault_of(client, deadline_seconds=0.2) is TokenizationFault.DEADLINE
    assert time.monotonic() - started < 2


async def test_a_call_that_is_cancelled_stops_the_peer(client, peer):
    peer.seconds = 5
    asking = asyncio.create_task(client.tokenize([PROMPT], deadline_seconds=5))
    await peer.until_asked()
    asking.cancel()
    async with asyncio.timeout(2):
        await peer.cancelled.wait()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_leaving_ends_open_calls_with_an_error_and_closes_once(peer, address):
    peer.seconds = 5
    async with AsyncExitStack() as stack:
        client = await stack.enter_async_context(TokenizationClient(address))
        asking = asyncio.create_task(fault_of(client))
        await peer.until_asked()
        await client.__aexit__(None, None, None)
        assert await asking is TokenizationFault.UNAVAILABLE
        assert await fault_of(client) is TokenizationFault.UNAVAILABLE
    assert await fault_of(client) is TokenizationFault.UNAVAILABLE


async def test_where_nobody_listens_a_call_fails_at_once_and_works_once_somebody_does(address):
    async with TokenizationClient(address) as client:
        started = time.monotonic()
        assert await fault_of(client) is TokenizationFault.UNAVAILABLE
        assert time.monotonic() - started < 1
        async with serving(Peer().register, address):
            assert await until_it_answers(client) == [RECORD]


async def until_it_answers(client):
    async with asyncio.timeout(10):
        while True:
            try:
                return await client.tokenize([PROMPT], deadline_seconds=3)
            except TokenizationError:
                await asyncio.sleep(0.02)


class TestTls:
    """A tokenext on another host: its certificate is checked, ours is shown, and both may be renewed."""

    @pytest.fixture
    def theirs(self, tmp_path):
        (tmp_path / "theirs").mkdir()
        return Files(tmp_path / "theirs")

    @pytest.fixture
    def ours(self, tmp_path):
        (tmp_path / "ours").mkdir()
        return Files(tmp_path / "ours")

    @staticmethod
    @asynccontextmanager
    async def serving(options, listen="127.0.0.1:0", peer=None):
        options = TlsOptions(listen, options.certificate, options.key, options.client_ca)
        async with serving((peer or Peer()).register, tls=options) as server:
            yield server.tls_address

    @staticmethod
    def calling(address, ours, *, name=NAME, shows=False):
        shown = (ours.folder / "tls.crt", ours.folder / "tls.key") if shows else (None, None)
        return TokenizationClient(address, tls=ClientTls(ours.folder / "ca.crt", *shown, name))

    async def test_a_tokenext_whose_certificate_is_signed_is_asked(self, theirs, ours):
        authority = Issued()
        theirs.write(Issued(authority))
        ours.trust(authority)
        async with self.serving(theirs.options()) as address, self.calling(address, ours) as client:
            assert await client.tokenize([PROMPT], deadline_seconds=3) == [RECORD]

    @pytest.mark.parametrize("wrong", ["another authority", "another name"])
    async def test_who_only_claims_to_be_tokenext_sees_no_prompt(self, theirs, ours, wrong):
        authority, peer = Issued(), Peer()
        theirs.write(Issued(authority))
        ours.trust(Issued() if wrong == "another authority" else authority)
        name = NAME if wrong == "another authority" else None
        async with (
            self.serving(theirs.options(), peer=peer) as address,
            self.calling(address, ours, name=name) as client,
        ):
            assert await fault_of(client) is TokenizationFault.UNAVAILABLE
        assert peer.asked == []

    async def test_where_tokenext_wants_a_certificate_ours_is_shown(self, theirs, ours):
        authority = Issued()
        theirs.write(Issued(authority))
        ours.write(Issued(authority))
        ours.trust(authority)
        async with self.serving(theirs.options(client_ca=authority)) as address:
            async with self.calling(address, ours, shows=True) as client:
                assert await client.tokenize([PROMPT], deadline_seconds=3) == [RECORD]
            async with self.calling(address, ours) as client:
                with pytest.raises(TokenizationError):
                    await client.tokenize([PROMPT], deadline_seconds=3)

    async def test_renewed_files_are_read_once_a_connection_is_missing(self, theirs, ours, caplog):
        before, after = Issued(), Issued()
        theirs.write(Issued(before))
        ours.trust(before)
        async with self.serving(theirs.options()) as address, self.calling(address, ours) as client:
            assert await client.tokenize([PROMPT], deadline_seconds=3) == [RECORD]
            ours.trust(after)
            # Over the connection that there is:
            assert await client.tokenize([PROMPT], deadline_seconds=3) == [RECORD]
        async with self.calling(address, ours) as client:
            theirs.write(Issued(before))
            async with self.serving(theirs.options(), address):
                assert await fault_of(client) is TokenizationFault.UNAVAILABLE
                (ours.folder / "ca.crt").write_text("half")
                assert await fault_of(client) is TokenizationFault.UNAVAILABLE
                assert "the ones before stay" in caplog.text
                ours.trust(before)
                assert await until_it_answers(client) == [RECORD]

    async def test_files_that_cannot_be_used_are_an_error_on_entering(self, ours):
        with pytest.raises(OSError, match=r"ca\.crt"):
            await self.calling("127.0.0.1:1", ours).__aenter__()


def test_a_program_of_others_imports_the_client_without_our_services():
    code = "import sys, extproc.tokenization_client; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert "extproc" in loaded
    assert not loaded & {"tokenext", "epp_adapter", "envoy"}
