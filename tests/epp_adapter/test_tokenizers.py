"""The seam to whoever tokenizes for us: one contract over the fake and over the call to tokenext."""

import asyncio
import time

import grpc
import pytest

from epp_adapter.records.callout import CalloutTokenizer
from epp_adapter.records.callout_tls import CalloutTlsSettings, callout_tls
from epp_adapter.records.tokenizer import CalloutError, CalloutFault, FakeTokenizer
from extproc.pb.tokenext.v1 import tokenization_pb2 as pb
from extproc.settings_file import SettingsError
from extproc.token_metadata import TokenRecord
from extproc.token_proto import to_proto
from tests.extproc.certificates import NAME, Files, Issued
from tests.extproc.tokenization_peer import RECORD, Peer, serving

CHAT = "/v1/chat/completions"


@pytest.fixture
def address(tmp_path):
    return f"unix:{tmp_path}/tokenext.sock"


@pytest.fixture
async def peer(address):
    peer = Peer()
    async with serving(peer.register, address):
        yield peer


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
        await peer.until_asked()
        asking.cancel()
        async with asyncio.timeout(2):
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


async def test_where_nobody_listens_a_call_fails_at_once(address):
    async with CalloutTokenizer(address, deadline_seconds=3) as tokenizer:
        started = time.monotonic()
        with pytest.raises(CalloutError) as caught:
            await tokenizer.tokenize(CHAT, b"{}")
    assert caught.value.fault is CalloutFault.UNAVAILABLE
    assert time.monotonic() - started < 1


class TestTls:
    """What TLS does is the client's (tests/extproc/test_tokenization_client.py); here are its settings."""

    @pytest.fixture
    def ours(self, tmp_path):
        return Files(tmp_path)

    async def test_tokenext_is_asked_with_the_files_that_the_settings_name(self, ours):
        authority = Issued()
        ours.write(Issued(authority))
        options = ours.options(client_ca=authority)
        tls = callout_tls(
            CalloutTlsSettings("ca.crt", "tls.crt", "tls.key", server_name=NAME), ours.folder / "epp.yaml"
        )
        async with (
            serving(Peer().register, tls=options) as server,
            CalloutTokenizer(server.tls_address, deadline_seconds=3, tls=tls) as tokenizer,
        ):
            assert await tokenizer.tokenize(CHAT, b"{}") == RECORD

    @pytest.mark.parametrize("missing", ["ca.crt", "tls.crt"])
    def test_a_file_that_cannot_be_used_is_named_at_the_start(self, ours, missing):
        ours.write(Issued())
        ours.trust(Issued())
        (ours.folder / missing).unlink()
        settings = CalloutTlsSettings("ca.crt", "tls.crt", "tls.key")
        with pytest.raises(SettingsError, match=rf"epp\.yaml: tokenization\.tls: .*{missing}"):
            callout_tls(settings, ours.folder / "epp.yaml")
