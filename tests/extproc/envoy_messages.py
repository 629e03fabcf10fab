"""Envoy's side of an ext_proc stream: builders for what it sends, readers for what it is told."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from envoy.config.core.v3.base_pb2 import HeaderMap, HeaderValue
from envoy.extensions.filters.http.ext_proc.v3.processing_mode_pb2 import ProcessingMode
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    HttpBody,
    HttpHeaders,
    HttpTrailers,
    ProcessingRequest,
    ProtocolConfiguration,
)
from google.protobuf.json_format import MessageToDict

from extproc.events import BodyMode
from extproc.session import Replies, Session, Step


def header_map(headers: Mapping[str, str] | Sequence[tuple[str, str]]) -> HeaderMap:
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    return HeaderMap(headers=[HeaderValue(key=key, raw_value=value.encode()) for key, value in pairs])


def request_headers(
    headers: Mapping[str, str] | Sequence[tuple[str, str]] = (), *, end: bool = False
) -> ProcessingRequest:
    return ProcessingRequest(request_headers=HttpHeaders(headers=header_map(headers), end_of_stream=end))


def request_body(body: bytes, *, end: bool = False) -> ProcessingRequest:
    return ProcessingRequest(request_body=HttpBody(body=body, end_of_stream=end))


def request_trailers() -> ProcessingRequest:
    return ProcessingRequest(request_trailers=HttpTrailers())


def response_headers(status: str = "200", *, end: bool = False) -> ProcessingRequest:
    return ProcessingRequest(
        response_headers=HttpHeaders(headers=header_map({":status": status}), end_of_stream=end)
    )


def response_body(body: bytes, *, end: bool = False) -> ProcessingRequest:
    return ProcessingRequest(response_body=HttpBody(body=body, end_of_stream=end))


def response_trailers() -> ProcessingRequest:
    return ProcessingRequest(response_trailers=HttpTrailers())


def with_modes(
    message: ProcessingRequest, request: BodyMode | str, response: BodyMode | str = BodyMode.NONE
) -> ProcessingRequest:
    """The message as the first of a stream, where Envoy says how it is configured."""

    def value(mode: BodyMode | str) -> Any:
        return ProcessingMode.BodySendMode.Value(mode.value if isinstance(mode, BodyMode) else mode)

    message.protocol_config.CopyFrom(
        ProtocolConfiguration(request_body_mode=value(request), response_body_mode=value(response))
    )
    return message


def with_metadata(message: ProcessingRequest, namespace: str, values: dict[str, Any]) -> ProcessingRequest:
    message.metadata_context.filter_metadata[namespace].update(values)
    return message


def feed(session: Session, messages: Iterable[ProcessingRequest]) -> list[Step]:
    return [session.receive(message) for message in messages]


def kinds(replies: Replies) -> list[str]:
    return [reply.WhichOneof("response") for reply in replies]


def streamed_body(replies: Replies, half: str = "request_body") -> tuple[bytes, list[bool]]:
    """The bytes sent back in full duplex, and the end_of_stream mark of each chunk."""
    chunks = [
        getattr(reply, half).response.body_mutation.streamed_response
        for reply in replies
        if reply.WhichOneof("response") == half
    ]
    return b"".join(chunk.body for chunk in chunks), [chunk.end_of_stream for chunk in chunks]


@dataclass(frozen=True)
class HeaderChanges:
    set: dict[str, str]
    removed: list[str]


def header_changes(reply: Any) -> HeaderChanges:
    name = reply.WhichOneof("response")
    holder = reply.immediate_response if name == "immediate_response" else getattr(reply, name).response
    mutation = holder.headers if name == "immediate_response" else holder.header_mutation
    return HeaderChanges(
        {option.header.key: option.header.raw_value.decode() for option in mutation.set_headers},
        list(mutation.remove_headers),
    )


def metadata_of(reply: Any) -> dict[str, Any]:
    return MessageToDict(reply.dynamic_metadata)
