"""Envoy's messages from our values, and back. No state and no order: those are session.py's."""

import json
from collections.abc import Iterable, Mapping
from typing import Any, Final

from envoy.config.core.v3.base_pb2 import HeaderValueOption
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse, TrailersResponse

from extproc.errors import ChainError
from extproc.events import Headers
from extproc.verdict import ResponseEdit, Verdict

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
    return Headers(values, len(header_map.headers))


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
        # A subset hint has hundreds of texts, and nothing else: they are read at once.
        return [item.string_value or _plain(item) for item in value.list_value.values]
    if kind in (None, "null_value"):
        return None
    plain: object = getattr(value, kind)
    return plain


def _fill(struct: Any, values: Mapping[str, Any]) -> None:
    """What Struct.update does, at a third of its cost for the few kinds of value that a verdict has."""
    for key, value in values.items():
        field = struct.fields[key]
        if type(value) is str:
            field.string_value = value
        elif type(value) is bool:
            field.bool_value = value
        elif isinstance(value, int | float):
            field.number_value = value
        elif isinstance(value, Mapping):
            field.struct_value.SetInParent()
            _fill(field.struct_value, value)
        else:
            struct.update({key: value})


def _mutate(mutation: Any, set_headers: Mapping[str, str], remove: Iterable[str] = ()) -> None:
    for name, value in set_headers.items():
        option = mutation.set_headers.add(append_action=_OVERWRITE)
        option.header.key = name
        option.header.raw_value = value.encode("utf-8", "surrogateescape")
    mutation.remove_headers.extend(remove)


# Replies are filled in place: a message that is put into another one is copied, and a body is large.


def _change(common: Any, verdict: Verdict, content_length: int | None) -> None:
    common.clear_route_cache = verdict.clear_route_cache
    set_headers = verdict.set_headers
    if content_length is not None:
        set_headers = {**set_headers, "content-length": str(content_length)}
    if set_headers or verdict.remove_headers:
        _mutate(common.header_mutation, set_headers, verdict.remove_headers)


def _with_metadata(reply: Reply, verdict: Verdict) -> Reply:
    if verdict.metadata:
        _fill(reply.dynamic_metadata, verdict.metadata)
    return reply


def request_headers(verdict: Verdict, *, content_length: int | None = None) -> Reply:
    reply = ProcessingResponse()
    reply.request_headers.response.SetInParent()
    _change(reply.request_headers.response, verdict, content_length)
    return _with_metadata(reply, verdict)


def request_body(verdict: Verdict) -> Reply:
    """The reply to a body that Envoy holds (BUFFERED) or lets pass (STREAMED). Sets a new one's length."""
    reply = ProcessingResponse()
    common = reply.request_body.response
    common.SetInParent()
    _change(common, verdict, None if verdict.body is None else len(verdict.body))
    if verdict.body is not None:
        _replace(common.body_mutation, verdict.body)
    return _with_metadata(reply, verdict)


def request_trailers(verdict: Verdict) -> Reply:
    """The reply to trailers: of a verdict, only metadata can still take effect."""
    return _with_metadata(ProcessingResponse(request_trailers=TrailersResponse()), verdict)


def _replace(mutation: Any, body: bytes) -> None:
    if body:
        mutation.body = body
    else:
        mutation.clear_body = True  # Envoy ignores an empty `body`; this is its way to say "no bytes"


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
        _chunk(half, piece, end_of_stream=end_of_stream and index == last)
        for index, piece in enumerate(pieces)
    )


def _chunk(half: str, piece: bytes, *, end_of_stream: bool) -> Reply:
    reply = ProcessingResponse()
    chunk = getattr(reply, half).response.body_mutation.streamed_response
    chunk.body = piece
    chunk.end_of_stream = end_of_stream
    return reply


def response_headers(edit: ResponseEdit) -> Reply:
    reply = ProcessingResponse()
    common = reply.response_headers.response
    common.SetInParent()
    if edit.set_headers or edit.remove_headers:
        _mutate(common.header_mutation, edit.set_headers, edit.remove_headers)
    return reply


def response_body(edit: ResponseEdit, *, whole: bool) -> Reply:
    """`whole`: the body came in one piece (BUFFERED), so that content-length must match a new one."""
    reply = ProcessingResponse()
    common = reply.response_body.response
    common.SetInParent()
    if edit.body is not None:
        _replace(common.body_mutation, edit.body)
        if whole:
            _mutate(common.header_mutation, {"content-length": str(len(edit.body))})
    return reply


def response_trailers() -> Reply:
    return ProcessingResponse(response_trailers=TrailersResponse())


def immediate(error: ChainError) -> Reply:
    """An answer in the model server's stead, with a body in the shape of OpenAI's errors."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"  # noqa: PLR2004  # HTTP's own border
    reply = ProcessingResponse()
    answer = reply.immediate_response
    answer.status.code = error.status
    _mutate(answer.headers, {"content-type": "application/json", **error.headers})
    answer.body = json.dumps(
        {"error": {"message": error.message, "type": kind, "code": error.reason.value}}
    ).encode()
    answer.details = f"chain_{error.reason.value}"
    return reply
