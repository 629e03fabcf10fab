"""What both engines share: one bounded POST, and every way it can fail in words for an operator."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Final

import aiohttp
import msgspec
import orjson

from extproc.token_metadata import TokenIds
from extproc.verdict import JsonValue
from tokenext.oracle import OracleError

__all__ = ["EngineClient", "Reply", "token_ids"]

_MAX_REPLY_BYTES: Final = 8 * 1024 * 1024
_SECONDS: Final = 10.0
_MAX_ID: Final = 2**32 - 1


@dataclass(frozen=True, slots=True)
class Reply:
    """`status` is 200 or a 4xx; `document` is what a 200 holds."""

    status: int
    document: JsonValue = None


class EngineClient:
    """Posts JSON to one engine. `session` is the caller's to close."""

    def __init__(self, session: aiohttp.ClientSession, url: str, *, seconds: float = _SECONDS) -> None:
        self._session = session
        self._url = url.rstrip("/")
        self._timeout = aiohttp.ClientTimeout(total=seconds)

    async def post(self, path: str, body: bytes) -> Reply:
        """Raises OracleError for whatever says nothing about the request."""
        try:
            async with self._session.post(
                self._url + path,
                data=body,
                headers={"content-type": "application/json"},
                timeout=self._timeout,
                allow_redirects=False,
            ) as response:
                status = response.status
                if status == HTTPStatus.OK:
                    text = await self._read(response)
        except TimeoutError:
            raise OracleError(f"{self._url} does not answer in {self._timeout.total:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise OracleError(f"{self._url} cannot be reached ({type(error).__name__})") from None
        if status == HTTPStatus.OK:
            return Reply(status, self._document(text, response.content_type))
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            raise OracleError(f"{self._url} wants credentials: {status} for {path}")
        if HTTPStatus.BAD_REQUEST <= status < HTTPStatus.INTERNAL_SERVER_ERROR:
            return Reply(status)
        raise OracleError(f"{self._url} answers {status} to {path}")

    async def _read(self, response: aiohttp.ClientResponse) -> bytes:
        text = await response.content.read(_MAX_REPLY_BYTES)
        while len(text) < _MAX_REPLY_BYTES and (
            more := await response.content.read(_MAX_REPLY_BYTES - len(text))
        ):
            text += more
        if not response.content.at_eof():
            raise OracleError(f"{self._url} answers with more than {_MAX_REPLY_BYTES} bytes")
        return text

    def _document(self, text: bytes, content_type: str) -> JsonValue:
        if content_type == "text/event-stream":  # the first event has all there is to see
            events = (line for line in text.splitlines() if line.startswith(b"data: {"))
            text = next(events, b"").removeprefix(b"data: ")
        try:
            document: JsonValue = orjson.loads(text)
        except orjson.JSONDecodeError:
            raise OracleError(f"{self._url} does not answer with JSON") from None
        return document


def token_ids(value: JsonValue) -> TokenIds | None:
    """A JSON list of ids, or None for anything else."""
    try:
        ids = msgspec.convert(value, list[int])
        return TokenIds.pack(ids) if all(0 <= number <= _MAX_ID for number in ids) else None
    except msgspec.ValidationError:
        return None
