"""The seam to whoever tokenizes for us: one contract over the fake and over the call to tokenext."""

import asyncio
import time
from contextlib import asynccontextmanager

import grpc
import pytest

from epp_adapter.records.callout import CalloutTokenizer
from epp_adapter.records.callout_tls import CalloutTls, CalloutTlsSettings, callout_tls
from epp_adapter.records.tokenizer import CalloutError, CalloutFault, FakeTokenizer
from extproc.exchange import PassingExchange
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.pb.tokenext.v1 import tokenization_pb2_grpc
from extproc.server import Server, ServerOptions
from extproc.settings_file import SettingsError
from extproc.tls import TlsOptions
from extproc.token_metadata import Kind, TokenIds, TokenRecord
from extproc.token_proto import to_proto
from tests.extproc.certificates import NAME, Files, Issued

CHAT = "/v1/chat/completions"
RECORD = TokenRecord("qwen3", "sha256:1", TokenIds.pack([1, 2, 2**32 - 1]), Kind.CHAT, engine_exact=True)


class Peer:
    """A Tokenization service that answers as it is told, and notes what it was asked."""

    def __init__(self):
        self.answer = pb.TokenizeResponse(results=[pb.PromptResult(record=to_proto(RECORD))])
        self.asked = []
        self.seconds = 0.0
        self.cancelled = asyncio.Event()
        self.code = None

    async def tokenize(self, request, context):
        self.asked.extend(request.prompts)
        try:
            await asyncio.sleep(self.seconds)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        if self.code is not None:
            await context.abort(self.code, "as told")
        return self.answer

    def register(self, server):
        servicer = tokenization_pb2_grpc.TokenizationServicer()
        servicer.Tokenize = self.tokenize
        tokenization_pb2_grpc.add_TokenizationServicer_to_server(servicer, server)


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/tokenext.sock"


@pytest.fixture
async def peer(address):
    peer = Peer()
    services = {"tokenext.v1.Tokenization": peer.register}
    server = Server(ServerOptions(address, drain_seconds=0), PassingExchange, services)
    await server.start()
    running = asyncio.create_task(server.run_until_stopped())
    yield peer
    server.stop()
    await running


class TokenizerContract:
    async def test_a_request_becomes_a_record(self, tokenizer):
        record = await tokenizer.tokenize(CHAT, b"{}")
        assert isinstance(record, TokenRecord)
        assert len(record.token_ids) > 0

    async def test_what_cannot_be_tokenized_is_a_callout_error(self, failing):
        with pytest.raises(CalloutError) as caught:
            await failing.tokenize(CHAT, b"{}")
        assert caught.value.fault is CalloutFault.DECLINED


class TestFake(TokenizerContract):
    @pytest.fixture
    def tokenizer(self):
        return FakeTokenizer()

    @pytest.fixture
    def failing(self):
        return FakeTokenizer(CalloutError(CalloutFault.DECLINED, "no"))


class TestCallout(TokenizerContract):
    @pytest.fixture
    async def tokenizer(self, peer, address):
        async with CalloutTokenizer(address, deadline_seconds=0.5) as tokenizer:
            yield tokenizer

    @pytest.fixture
    def failing(self, peer, tokenizer):
        peer.answer = pb.TokenizeResponse(results=[pb.PromptResult(skip_reason="multimodal")])
        return tokenizer

    async def test_path_and_body_travel_and_the_record_comes_back_whole(self, tokenizer, peer):
        assert await tokenizer.tokenize(CHAT, b'{"model": "\xff"}') == RECORD
        assert [(prompt.path, prompt.body, prompt.model) for prompt in peer.asked] == [
            (CHAT, b'{"model": "\xff"}', "")
        ]

    async def test_a_body_above_grpcs_default_limit_travels(self, peer, address):
        async with CalloutTokenizer(address, deadline_seconds=30) as patient:
            await patient.tokenize(CHAT, b"x" * 10_000_000)
        assert len(peer.asked[0].body) == 10_000_000

    @pytest.mark.parametrize("told", ["by tokenext", "by gRPC"])
    async def test_a_late_answer_is_a_deadline(self, tokenizer, peer, told):
        if told == "by gRPC":
            peer.seconds = 5
        else:
            peer.answer = pb.TokenizeResponse(results=[pb.PromptResult(skip_reason="deadline")])
        started = time.monotonic()
        with pytest.raises(CalloutError) as caught:
            await tokenizer.tokenize(CHAT, b"{}")
        assert caught.value.fault is CalloutFault.DEADLINE
        assert time.monotonic() - started < 2

    async def test_a_call_that_is_cancelled_stops_the_peer(self, tokenizer, peer):
        peer.seconds = 5
        asking = asyncio.ensure_future(tokenizer.tokenize(CHAT, b"{}"))
        async with asyncio.timeout(2):
            while not peer.asked:  # noqa: ASYNC110  # no event tells
                await asyncio.sleep(0.005)
            asking.cancel()
            await peer.cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await asking

    @pytest.mark.parametrize(
        "answer",
        [
            pb.TokenizeResponse(),
            pb.TokenizeResponse(results=[pb.PromptResult(record=to_proto(RECORD))] * 2),
            pb.TokenizeResponse(results=[pb.PromptResult(record={"kind": 1, "token_count": 7})]),
        ],
    )
    async def test_an_answer_that_makes_no_sense_is_a_failure(self, tokenizer, peer, answer):
        peer.answer = answer
        with pytest.raises(CalloutError) as caught:
            await tokenizer.tokenize(CHAT, b"{}")
        assert caught.value.fault is CalloutFault.FAILED

    async def test_an_error_of_the_peer_is_a_failure(self, tokenizer, peer):
        peer.code = grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(CalloutError, match="RESOURCE_EXHAUSTED") as caught:
            await tokenizer.tokenize(CHAT, b"{}")
        assert caught.value.fault is CalloutFault.FAILED


async def test_where_nobody_listens_a_call_fails_at_once_and_works_once_somebody_does(address):
    async with CalloutTokenizer(address, deadline_seconds=3) as tokenizer:
        started = time.monotonic()
        with pytest.raises(CalloutError) as caught:
            await tokenizer.tokenize(CHAT, b"{}")
        assert caught.value.fault is CalloutFault.UNAVAILABLE
        assert time.monotonic() - started < 1
        peer = Peer()
        server = Server(ServerOptions(address, drain_seconds=0), PassingExchange, {"x": peer.register})
        await server.start()
        running = asyncio.create_task(server.run_until_stopped())
        async with asyncio.timeout(5):
            while True:
                try:
                    assert await tokenizer.tokenize(CHAT, b"{}") == RECORD
                except CalloutError:
                    await asyncio.sleep(0.05)
                else:
                    break
        server.stop()
        await running


class TestTls:
    """tokenext on another host: its certificate is checked, ours is shown, and both may be renewed."""

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
    async def serving(options: TlsOptions, listen="127.0.0.1:0"):
        services = {"tokenext.v1.Tokenization": Peer().register}
        options = TlsOptions(listen, options.certificate, options.key, options.client_ca)
        server = Server(ServerOptions("127.0.0.1:0", drain_seconds=0, tls=options), PassingExchange, services)
        await server.start()
        running = asyncio.create_task(server.run_until_stopped())
        try:
            yield server.tls_address
        finally:
            server.stop()
            await running

    @staticmethod
    def calling(address, ours, *, name=NAME, shows=False):
        shown = (ours.folder / "tls.crt", ours.folder / "tls.key") if shows else (None, None)
        tls = CalloutTls(ours.folder / "ca.crt", *shown, name)
        return CalloutTokenizer(address, deadline_seconds=3, tls=tls)

    async def test_a_tokenext_whose_certificate_is_signed_is_asked(self, theirs, ours):
        authority = Issued()
        theirs.write(Issued(authority))
        ours.trust(authority)
        async with self.serving(theirs.options()) as address, self.calling(address, ours) as tokenizer:
            assert await tokenizer.tokenize(CHAT, b"{}") == RECORD

    @pytest.mark.parametrize("wrong", ["another authority", "another name"])
    async def test_who_only_claims_to_be_tokenext_sees_no_prompt(self, theirs, ours, wrong):
        authority = Issued()
        theirs.write(Issued(authority))
        ours.trust(Issued() if wrong == "another authority" else authority)
        name = NAME if wrong == "another authority" else None
        async with (
            self.serving(theirs.options()) as address,
            self.calling(address, ours, name=name) as tokenizer,
        ):
            with pytest.raises(CalloutError) as caught:
                await tokenizer.tokenize(CHAT, b"{}")
        assert caught.value.fault is CalloutFault.UNAVAILABLE

    async def test_where_tokenext_wants_a_certificate_ours_is_shown(self, theirs, ours):
        authority = Issued()
        theirs.write(Issued(authority))
        ours.write(Issued(authority))
        ours.trust(authority)
        async with self.serving(theirs.options(client_ca=authority)) as address:
            async with self.calling(address, ours, shows=True) as tokenizer:
                assert await tokenizer.tokenize(CHAT, b"{}") == RECORD
            async with self.calling(address, ours) as tokenizer:
                with pytest.raises(CalloutError):
                    await tokenizer.tokenize(CHAT, b"{}")

    async def test_renewed_files_are_read_once_a_connection_is_missing(self, theirs, ours, caplog):
        before, after = Issued(), Issued()
        theirs.write(Issued(before))
        ours.trust(before)
        async with self.serving(theirs.options()) as address, self.calling(address, ours) as tokenizer:
            assert await tokenizer.tokenize(CHAT, b"{}") == RECORD
            ours.trust(after)
            assert await tokenizer.tokenize(CHAT, b"{}") == RECORD  # over the connection that there is
        async with self.calling(address, ours) as tokenizer:
            theirs.write(Issued(before))
            async with self.serving(theirs.options(), address):
                with pytest.raises(CalloutError):
                    await tokenizer.tokenize(CHAT, b"{}")
                (ours.folder / "ca.crt").write_text("half")
                with pytest.raises(CalloutError):
                    await tokenizer.tokenize(CHAT, b"{}")
                assert "the ones before stay" in caplog.text
                ours.trust(before)
                async with asyncio.timeout(10):
                    while True:
                        try:
                            assert await tokenizer.tokenize(CHAT, b"{}") == RECORD
                        except CalloutError:
                            await asyncio.sleep(0.02)
                        else:
                            break

    @pytest.mark.parametrize("missing", ["ca.crt", "tls.crt"])
    def test_a_file_that_cannot_be_used_is_named_at_the_start(self, ours, missing):
        ours.write(Issued())
        ours.trust(Issued())
        (ours.folder / missing).unlink()
        settings = CalloutTlsSettings("ca.crt", "tls.crt", "tls.key")
        with pytest.raises(SettingsError, match=rf"epp\.yaml: tokenization\.tls: .*{missing}"):
            callout_tls(settings, ours.folder / "epp.yaml")
