"""tokenext's Tokenization RPC (proto/tokenext/v1/tokenization.proto) as a Tokenizer."""

import logging
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from epp_adapter.records.callout_tls import CalloutTls
from epp_adapter.records.tokenizer import CalloutError, CalloutFault
from extproc.pb.tokenext.v1 import tokenization_pb2, tokenization_pb2_grpc
from extproc.server import DEFAULT_MAX_MESSAGE_BYTES
from extproc.token_metadata import RecordError, TokenRecord
from extproc.token_proto import from_proto

__all__ = ["CalloutTokenizer"]

_log = logging.getLogger(__name__)

_FAULTS: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: CalloutFault.DEADLINE,
    grpc.StatusCode.UNAVAILABLE: CalloutFault.UNAVAILABLE,
}
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", DEFAULT_MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", DEFAULT_MAX_MESSAGE_BYTES),
    # By default a tokenext that restarts would not be looked for again for up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class CalloutTokenizer:
    """Owns one gRPC channel, from entering it to leaving it. `address` is unix:/path or host:port.

    It never waits for a connection: while nobody listens, a call fails at once. With `tls`, entering raises
    OSError where its files cannot be used. Renewed files are read when a call finds no connection: until then
    nobody asks for them.
    """

    def __init__(self, address: str, *, deadline_seconds: float, tls: CalloutTls | None = None) -> None:
        self._address = address
        self._deadline_seconds = deadline_seconds
        self._tls = tls
        self._files: object = None

    async def __aenter__(self) -> Self:
        if self._tls is None:
            self._use(grpc.aio.insecure_channel(self._address, _CHANNEL_OPTIONS))
        else:
            self._files = self._tls.stamp()
            self._use(self._secure_channel(self._tls))
        return self

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub: Any = tokenization_pb2_grpc.TokenizationStub(channel)

    def _secure_channel(self, tls: CalloutTls) -> grpc.aio.Channel:
        named = () if tls.server_name is None else (("grpc.ssl_target_name_override", tls.server_name),)
        return grpc.aio.secure_channel(self._address, tls.credentials(), (*_CHANNEL_OPTIONS, *named))

    async def _heed_renewed_files(self, tls: CalloutTls) -> None:
        """A channel keeps the credentials that it was made with, so changed files are a new channel's."""
        try:
            found = tls.stamp()
            if found == self._files:
                return
            self._files = found
            channel = self._secure_channel(tls)
        except OSError as error:  # ssl.SSLError is one
            _log.warning("%s: files cannot be used, the ones before stay: %s", tls.ca, error)
            return
        before = self._channel
        self._use(channel)
        await before.close(None)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close(None)

    async def tokenize(self, path: str, body: bytes) -> TokenRecord:
        request = tokenization_pb2.TokenizeRequest(prompts=[tokenization_pb2.Prompt(path=path, body=body)])
        try:
            answer = await self._stub.Tokenize(request, timeout=self._deadline_seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if self._tls is not None and code is grpc.StatusCode.UNAVAILABLE:
                await self._heed_renewed_files(self._tls)
            raise CalloutError(_FAULTS.get(code, CalloutFault.FAILED), f"gRPC {code.name}") from None
        if len(answer.results) != 1:
            raise CalloutError(CalloutFault.FAILED, f"{len(answer.results)} results for one prompt")
        (result,) = answer.results
        if not result.HasField("record"):
            raise CalloutError(_declined(result.skip_reason), "tokenext made no record")
        try:
            return from_proto(result.record)
        except RecordError as error:
            raise CalloutError(CalloutFault.FAILED, str(error)) from None


def _declined(reason: str) -> CalloutFault:
    """Its server heeds our deadline too, and says so before gRPC does."""
    return CalloutFault.DEADLINE if reason == "deadline" else CalloutFault.DECLINED
