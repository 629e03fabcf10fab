"""tokenext's Tokenization RPC (proto/tokenext/v1/tokenization.proto) as a Tokenizer."""

from types import TracebackType
from typing import Self

from epp_adapter.records.tokenizer import CalloutError, CalloutFault
from extproc.client_tls import ClientTls
from extproc.token_metadata import TokenRecord
from extproc.tokenization import UNREADABLE, NoRecord, Prompt, TokenizationError
from extproc.tokenization_client import TokenizationClient

__all__ = ["CalloutTokenizer"]


class CalloutTokenizer:
    """Owns one `TokenizationClient` (which says what `address` and `tls` are), until it is left."""

    def __init__(self, address: str, *, deadline_seconds: float, tls: ClientTls | None = None) -> None:
        self._client = TokenizationClient(address, tls=tls)
        self._deadline_seconds = deadline_seconds

    async def __aenter__(self) -> Self:
        await self._client.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._client.__aexit__(kind, error, trace)

    async def tokenize(self, path: str, body: bytes) -> TokenRecord:
        try:
            (answer,) = await self._client.tokenize(
                [Prompt(path, body)], deadline_seconds=self._deadline_seconds
            )
        except TokenizationError as error:
            raise CalloutError(CalloutFault(error.fault), str(error)) from None  # the same words
        if isinstance(answer, NoRecord):
            raise CalloutError(_fault(answer), "tokenext made no record")
        return answer


def _fault(none: NoRecord) -> CalloutFault:
    if none.reason == UNREADABLE:
        return CalloutFault.FAILED
    # Its server heeds our deadline too, and says so before gRPC does.
    return CalloutFault.DEADLINE if none.reason == "deadline" else CalloutFault.DECLINED
