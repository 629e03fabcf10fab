"""tokenext's Tokenization RPC (proto/tokenext/v1/tokenization.proto) for whoever routes in Python."""

import asyncio
import logging
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Final, Self

import grpc
import grpc.aio

from extproc.client_tls import ClientTls
from extproc.pb.tokenext.v1 import tokenization_pb2, tokenization_pb2_grpc
from extproc.token_metadata import RecordError, TokenRecord
from extproc.token_proto import from_proto
from extproc.tokenization import (
    UNREADABLE,
    NoRecord,
    Prompt,
    TokenizationError,
    TokenizationFault,
    check_call,
)
from extproc.wellknown import MAX_MESSAGE_BYTES

__all__ = ["TokenizationClient"]

_log = logging.getLogger(__name__)

_FAULTS: Final = {
    grpc.StatusCode.DEADLINE_EXCEEDED: TokenizationFault.DEADLINE,
    grpc.StatusCode.UNAVAILABLE: TokenizationFault.UNAVAILABLE,
}
_CHANNEL_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # By default a tokenext that restarts would not be looked for again for up to two minutes.
    ("grpc.max_reconnect_backoff_ms", 1000),
)


class TokenizationClient:
    """Owns one gRPC channel, from entering it to leaving it. `address` is unix:/path or host:port.

    It never waits for a connection: while nobody listens, a call fails at once. Calls that are open when it
    is left, and later ones, are UNAVAILABLE. With `tls`, entering raises OSError where its files cannot be
    used. Renewed files are read when a call finds no connection: until then nobody asks for them.
    """

    def __init__(self, address: str, *, tls: ClientTls | None = None) -> None:
        self._address = address
        self._tls = tls
        self._files: object = None
        self._channel: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        if self._tls is None:
            self._use(grpc.aio.insecure_channel(self._address, _CHANNEL_OPTIONS))
        else:
            self._files = self._tls.stamp()
            self._use(self._secure_channel(self._tls))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close(None)

    async def tokenize(
        self, prompts: Sequence[Prompt], *, deadline_seconds: float
    ) -> list[TokenRecord | NoRecord]:
        """As the seam says (extproc.tokenization)."""
        check_call(prompts, deadline_seconds)
        if self._channel is None:
            raise TokenizationError(TokenizationFault.UNAVAILABLE, "the client is not open")
        request = tokenization_pb2.TokenizeRequest(
            prompts=[
                tokenization_pb2.Prompt(path=each.path, body=each.body, model=each.model) for each in prompts
            ]
        )
        try:
            answer = await self._stub.Tokenize(request, timeout=deadline_seconds)
        except grpc.aio.AioRpcError as error:
            code = error.code()
            if self._tls is not None and code is grpc.StatusCode.UNAVAILABLE:
                await self._heed_renewed_files(self._tls)
            fault = _FAULTS.get(code, TokenizationFault.FAILED)
            raise TokenizationError(fault, f"gRPC {code.name}") from None
        except asyncio.CancelledError:
            # gRPC cancels whoever waits on a channel that is closed; nobody else asked the caller to stop.
            if _asked_to_stop():
                raise
            raise TokenizationError(TokenizationFault.UNAVAILABLE, "the channel was closed") from None
        if len(answer.results) != len(prompts):
            detail = f"{len(answer.results)} results for {len(prompts)} prompts"
            raise TokenizationError(TokenizationFault.FAILED, detail)
        return [_answer(result) for result in answer.results]

    def _use(self, channel: grpc.aio.Channel) -> None:
        self._channel = channel
        self._stub: Any = tokenization_pb2_grpc.TokenizationStub(channel)

    def _secure_channel(self, tls: ClientTls) -> grpc.aio.Channel:
        named = () if tls.server_name is None else (("grpc.ssl_target_name_override", tls.server_name),)
        return grpc.aio.secure_channel(self._address, tls.credentials(), (*_CHANNEL_OPTIONS, *named))

    async def _heed_renewed_files(self, tls: ClientTls) -> None:
        """A channel keeps the credentials that it was made with, so changed files are a new channel's."""
        before = self._channel
        if before is None:  # left meanwhile: nobody would close another one
            return
        try:
            found = tls.stamp()
            if found == self._files:
                return
            self._files = found
            channel = self._secure_channel(tls)
        except OSError as error:  # ssl.SSLError is one
            _log.warning("%s: files cannot be used, the ones before stay: %s", tls.ca, error)
            return
        self._use(channel)
        await before.close(None)


def _answer(result: Any) -> TokenRecord | NoRecord:
    if not result.HasField("record"):
        return NoRecord(result.skip_reason)
    try:
        return from_proto(result.record)
    except RecordError:
        return NoRecord(UNREADABLE)


def _asked_to_stop() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
