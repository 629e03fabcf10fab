"""tokenext's Tokenization RPC (proto/tokenext/v1/tokenization.proto) as a Tokenizer."""

from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from epp_adapter.records.tokenizer import CalloutError, CalloutFault
from extproc.pb.tokenext.v1 import tokenization_pb2, tokenization_pb2_grpc
from extproc.server import DEFAULT_MAX_MESSAGE_BYTES
from extproc.token_metadata import RecordError, TokenRecord
from extproc.token_proto import from_proto

__all__ = ["CalloutTokenizer"]

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

    It never waits for a connection: while nobody listens, a call fails at once.
    """

    def __init__(self, address: str, *, deadline_seconds: float) -> None:
        self._address = address
        self._deadline_seconds = deadline_seconds

    async def __aenter__(self) -> Self:
        self._channel = grpc.aio.insecure_channel(self._address, _CHANNEL_OPTIONS)
        self._stub: Any = tokenization_pb2_grpc.TokenizationStub(self._channel)
        return self

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
