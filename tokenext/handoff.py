"""What an engine is given, and what no client may give it: body in, body out.

Token ids and worker pins in a body replace the visible prompt or the route, so only the chain may set them.
`strip` takes a client's copies out; a hand-off sets ours. Both keep every other byte of a value as it is.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

import msgspec
import orjson

from extproc.token_metadata import TokenIds
from tokenext.json_object import JsonObject, NotAnObjectError, join, read

__all__ = ["Handoff", "give_dynamo", "strip"]


class Handoff(StrEnum):
    """The catalog's `handoff`: how a model's engine takes token ids."""

    DYNAMO = "dynamo"  # nvext.token_data
    NONE = "none"


_Fields = dict[str, msgspec.Raw | bytes]

_TOKEN_DATA: Final = "token_data"  # noqa: S105  # a field's name
# NVIDIA Dynamo 1.6: the ids, and the workers a request is pinned to (NvExt of its OpenAI protocol).
_NVEXT_OWNED: Final = frozenset(
    {
        _TOKEN_DATA,
        "backend_instance_id",
        "decode_worker_id",
        "prefill_worker_id",
        "dp_rank",
        "prefill_dp_rank",
    }
)
_IDS_FIELD: Final = "prompt_token_ids"
# vLLM 0.32 takes ids for chats from here.
_OWNED: Final[Mapping[str, frozenset[str]]] = {
    "nvext": _NVEXT_OWNED,
    "kv_transfer_params": frozenset({_IDS_FIELD}),
}


def strip(body: JsonObject) -> bytes:
    """The body without the fields that the chain owns; the very same bytes where it has none of them."""
    kept = _kept(body)
    return body.text if kept is None else join(kept)


def give_dynamo(body: JsonObject, ids: TokenIds) -> bytes:
    """The body with `ids` as nvext.token_data, for /v1/chat/completions and /v1/completions alike.

    The messages stay: Dynamo validates them. A client's other nvext fields stay too. `ids` must not be empty:
    Dynamo would take an empty list at its word.
    """
    if not ids:
        raise ValueError("no token ids to hand over")
    token_data = orjson.dumps(ids.as_array().tolist())
    kept = _kept(body)
    if kept is None and "nvext" not in body.fields:
        return _insert(body, b'"nvext":{"token_data":%b}' % token_data)
    fields: _Fields = dict(body.fields) if kept is None else kept
    fields["nvext"] = join({**_subfields(fields.get("nvext", b"{}")), _TOKEN_DATA: token_data})
    return join(fields)


def _insert(body: JsonObject, member: bytes) -> bytes:
    end = body.text.rindex(b"}")
    separator = b"," if body.fields else b""
    return b"".join((body.text[:end], separator, member, body.text[end:]))


def _kept(body: JsonObject) -> _Fields | None:
    """What is left when the chain's fields are gone, or None where there are none."""
    kept: _Fields = {name: value for name, value in body.fields.items() if name != _IDS_FIELD}
    changed = len(kept) < len(body.fields)
    for name, owned in _OWNED.items():
        if name in kept:
            inner = _subfields(kept[name])
            if not owned.isdisjoint(inner):
                kept[name] = join({key: value for key, value in inner.items() if key not in owned})
                changed = True
    return kept if changed else None


def _subfields(value: msgspec.Raw | bytes) -> Mapping[str, msgspec.Raw]:
    try:
        return read(value).fields
    except NotAnObjectError:  # null, or a type that the model server refuses
        return {}
