"""What Envoy sends the picker in one exchange: the messages of docs/adr/0004's mode, ready for the wire.

Field for field those of Envoy 1.40 in front of the chain (`make up`): all headers as raw bytes, and the
forwarded metadata beside every message; beside the response's the record has lost its ids by then.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpHeaders,
    ProcessingRequest,
    ProtocolConfiguration,
)

from extproc import wellknown
from extproc.token_metadata import Kind, TokenIds, TokenRecord, encode, spent
from extproc.verdict import JsonValue

__all__ = ["RecordedExchange", "recorded"]

_REQUEST: Final = {
    ":authority": "127.0.0.1:8080",
    ":path": "/v1/chat/completions",
    ":method": "POST",
    ":scheme": "http",
    "host": "127.0.0.1:8080",
    "accept": "*/*",
    "accept-encoding": "gzip, deflate",
    "user-agent": "python-requests/2.32",
    "content-type": "application/json",
    "authorization": "Bearer 0123456789abcdef0123456789abcdef",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-proto": "http",
    "x-envoy-external-address": "127.0.0.1",
}
_RESPONSE: Final = {
    ":status": "200",
    "content-type": "application/json",
    "content-length": "1432",
    "date": "Mon, 23 Nov 2026 22:00:00 GMT",
    "x-envoy-upstream-service-time": "12",
    "server": "envoy",
}
VOCABULARY: Final = 150_000


@dataclass(frozen=True, slots=True)
class RecordedExchange:
    """ProcessingRequests as bytes: the request's headers, and the response's by the endpoint that served."""

    request: bytes
    responses: Mapping[str, bytes]

    def response(self, destination: str) -> bytes:
        """What Envoy sends when the endpoint it was told has served; told nothing, it takes any."""
        return self.responses.get(destination) or next(iter(self.responses.values()))


def recorded(
    tokens: int,
    count: int,
    endpoints: Sequence[str],
    *,
    with_record: bool = True,
    headers: Mapping[str, str] | None = None,
) -> list[RecordedExchange]:
    """Exchanges with prompts of so many ids; half of each is shared by all, as a system prompt is.

    `endpoints` may serve them. `headers` are added to those of the request.
    """
    source = random.Random(tokens)
    shared = [source.randrange(VOCABULARY) for _ in range(tokens // 2)]
    exchanges = []
    for number in range(count):
        ids = shared + [source.randrange(VOCABULARY) for _ in range(tokens - len(shared))]
        sent = {
            **_REQUEST,
            "x-request-id": f"00000000-0000-4000-8000-{number:012d}",
            "content-length": str(4 * tokens),
            **(headers or {}),
        }
        exchanges.append(_exchange(sent, endpoints, ids if with_record else None))
    return exchanges


def _exchange(
    headers: Mapping[str, str], endpoints: Sequence[str], ids: Sequence[int] | None
) -> RecordedExchange:
    request = ProcessingRequest(request_headers=_headers(headers), protocol_config=ProtocolConfiguration())
    record = None if ids is None else _record(ids)
    if record is not None:
        _attach(request, encode(record))
    responses = {}
    for endpoint in endpoints:
        response = ProcessingRequest(response_headers=_headers(_RESPONSE))
        if record is not None:
            _attach(response, spent(record))
        served = response.metadata_context.filter_metadata[wellknown.DESTINATION_NAMESPACE]
        served.update({wellknown.SERVED_KEY: endpoint, wellknown.DESTINATION_KEY: endpoint})
        responses[endpoint] = response.SerializeToString()
    return RecordedExchange(request.SerializeToString(), responses)


def _record(ids: Sequence[int]) -> TokenRecord:
    return TokenRecord(
        "stack-model", f"sha256:{0:064x}", TokenIds.pack(list(ids)), Kind.CHAT, engine_exact=True
    )


def _attach(message: Any, record: JsonValue) -> None:
    fields = message.metadata_context.filter_metadata[wellknown.RECORD_NAMESPACE]
    fields.update({wellknown.RECORD_KEY: record})


def _headers(values: Mapping[str, str]) -> HttpHeaders:
    pairs = [HeaderValue(key=name, raw_value=value.encode()) for name, value in values.items()]
    return HttpHeaders(headers=HeaderMap(headers=pairs))
