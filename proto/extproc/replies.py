"""Envoy's messages from our values, and back. No state and no order: those are session.py's."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValue, HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import (
    BodyMutation,
    BodyResponse,
    CommonResponse,
    HeaderMutation,
    HeadersResponse,
    ImmediateResponse,
    ProcessingResponse,
    StreamedBodyResponse,
    TrailersResponse,
)
from envoy.type.v3.http_status_pb2 import HttpStatus
from google.protobuf.struct_pb2 import Struct

from extproc.errors import ChainError
from extproc.events import Headers
from extproc.verdict import JsonValue, ResponseEdit, Verdict

__all__ = [
    "MAX_CHUNK_BYTES",
    "EnvoyMetadata",
    "Reply",
    "duplex_chunks",
    "immediate",
    "plain_headers",
    "request_body",
    "request_headers",
    "request_trailers",
    "response_body",
    "response_headers",
    "response_trailers",
]

Reply = Any  # envoy.service.ext_proc.v3.ProcessingResponse; xds-protos ships no type information

MAX_CHUNK_BYTES: Final = (
    62_000  # what the reference Endpoint Picker sends at most (llm-d-router, BodyByteLimit)
)

_OVERWRITE: Final = HeaderValueOption.HeaderAppendAction.OVERWRITE_IF_EXISTS_OR_ADD


def plain_headers(header_map: Any) -> Headers:
    """Envoy's header map as Headers. Bytes that are no UTF-8 survive as surrogates; nothing is dropped."""
    values: dict[str, str] = {}
    for header in header_map.headers:
        value = header.raw_value.decode("utf-8", "surrogateescape") or header.value
        name = header.key
        values[name] = f"{values[name]},{value}" if name in values else value
    return Headers(values)


class EnvoyMetadata:
    """Metadata of a stream: the first message that has a key wins, so that a record is read only once.

    Every message repeats all metadata; only the first and the latest are kept.
    """

    __slots__ = ("_first", "_latest")

    def __init__(self, context: Any) -> None:
        self._first = context
        self._latest = context

    def follow(self, context: Any) -> None:
        self._latest = context

    def get(self, namespace: str, key: str) -> object | None:
        for context in (self._first, self._latest):
            if namespace in context.filter_metadata:
                fields = context.filter_metadata[namespace].fields
                if key in fields:
                    return _plain(fields[key])
        return None


def _plain(value: Any) -> object | None:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return {key: _plain(field) for key, field in value.struct_value.fields.items()}
    if kind == "list_value":
        return [_plain(item) for item in value.list_value.values]
    if kind in (None, "null_value"):
        return None
    plain: object = getattr(value, kind)
    return plain


def _struct(values: Mapping[str, Mapping[str, JsonValue]]) -> Struct:
    struct = Struct()
    struct.update(values)
    return struct


def _header_mutation(set_headers: Mapping[str, str], remove: Iterable[str] = ()) -> Any:
    return HeaderMutation(
        set_headers=[
            HeaderValueOption(
                header=HeaderValue(key=name, raw_value=value.encode("utf-8", "surrogateescape")),
                append_action=_OVERWRITE,
            )
            for name, value in set_headers.items()
        ],
        remove_headers=remove,
    )


def _with_metadata(reply: Reply, verdict: Verdict) -> Reply:
    if verdict.metadata:
        reply.dynamic_metadata.CopyFrom(_struct(verdict.metadata))
    return reply


def _changes(verdict: Verdict, content_length: int | None) -> Any:
    set_headers = verdict.set_headers
    if content_length is not None:
        set_headers = {**set_headers, "content-length": str(content_length)}
    common = CommonResponse(clear_route_cache=verdict.clear_route_cache)
    if set_headers or verdict.remove_headers:
        common.header_mutation.CopyFrom(_header_mutation(set_headers, verdict.remove_headers))
    return common


def request_headers(verdict: Verdict, *, content_length: int | None = None) -> Reply:
    common = _changes(verdict, content_length)
    return _with_metadata(ProcessingResponse(request_headers=HeadersResponse(response=common)), verdict)


def request_body(verdict: Verdict) -> Reply:
    """The reply to a body that Envoy holds (BUFFERED) or lets pass (STREAMED). Sets a new one's length."""
    common = _changes(verdict, None if verdict.body is None else len(verdict.body))
    if verdict.body is not None:
        common.body_mutation.CopyFrom(_new_body(verdict.body))
    return _with_metadata(ProcessingResponse(request_body=BodyResponse(response=common)), verdict)


def request_trailers(verdict: Verdict) -> Reply:
    """The reply to trailers: of a verdict, only metadata can still take effect."""
    return _with_metadata(ProcessingResponse(request_trailers=TrailersResponse()), verdict)


def _new_body(body: bytes) -> Any:
    # Envoy ignores an empty `body`; clearing is its way to say "no bytes".
    return BodyMutation(body=body) if body else BodyMutation(clear_body=True)


def duplex_chunks(half: str, chunks: Iterable[bytes], *, end_of_stream: bool) -> tuple[Reply, ...]:
    """Body chunks sent back in FULL_DUPLEX_STREAMED, none over MAX_CHUNK_BYTES, the last one marked.

    `half` is "request_body" or "response_body". An empty body that ends is one empty chunk.
    """
    pieces = [
        chunk[start : start + MAX_CHUNK_BYTES]
        for chunk in chunks
        for start in range(0, len(chunk), MAX_CHUNK_BYTES)
    ]
    if end_of_stream and not pieces:
        pieces.append(b"")
    last = len(pieces) - 1
    return tuple(
        ProcessingResponse(
            **{
                half: BodyResponse(
                    response=CommonResponse(
                        body_mutation=BodyMutation(
                            streamed_response=StreamedBodyResponse(
                                body=piece, end_of_stream=end_of_stream and index == last
                            )
                        )
                    )
                )
            }
        )
        for index, piece in enumerate(pieces)
    )


def response_headers(edit: ResponseEdit) -> Reply:
    common = CommonResponse()
    if edit.set_headers or edit.remove_headers:
        common.header_mutation.CopyFrom(_header_mutation(edit.set_headers, edit.remove_headers))
    return ProcessingResponse(response_headers=HeadersResponse(response=common))


def response_body(edit: ResponseEdit, *, whole: bool) -> Reply:
    """`whole`: the body came in one piece (BUFFERED), so that content-length must match a new one."""
    common = CommonResponse()
    if edit.body is not None:
        common.body_mutation.CopyFrom(_new_body(edit.body))
        if whole:
            common.header_mutation.CopyFrom(_header_mutation({"content-length": str(len(edit.body))}))
    return ProcessingResponse(response_body=BodyResponse(response=common))


def response_trailers() -> Reply:
    return ProcessingResponse(response_trailers=TrailersResponse())


def immediate(error: ChainError) -> Reply:
    """An answer in the model server's stead, with a body in the shape of OpenAI's errors."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"  # noqa: PLR2004  # HTTP's own border
    body = {"error": {"message": error.message, "type": kind, "code": error.reason.value}}
    return ProcessingResponse(
        immediate_response=ImmediateResponse(
            status=HttpStatus(code=error.status),
            headers=_header_mutation({"content-type": "application/json", **error.headers}),
            body=json.dumps(body).encode(),
            details=f"chain_{error.reason.value}",
        )
    )
