"""What an engine is given, and what no client may give it: body in, body out.

Token ids and worker pins in a body replace the visible prompt or the route, so only the chain may set them.
`strip` takes a client's copies out; `hand_over` sets ours. Both keep the bytes of every other value.

The messages stay, unless a model says `strip_messages`: each engine validates them, and its errors stay its
own.
"""

from collections.abc import Callable, Mapping
from enum import StrEnum
from typing import Final

import msgspec

from extproc.token_metadata import Kind, TokenIds, TokenRecord
from tokenext.ids_json import ids_as_json
from tokenext.json_object import JsonObject, NotAnObjectError, join, read

__all__ = ["Handoff", "hand_over", "strip"]


class Handoff(StrEnum):
    """The catalog's `handoff`: how a model's engine takes token ids."""

    DYNAMO = "dynamo"  # nvext.token_data
    VLLM = "vllm"  # chat: kv_transfer_params.prompt_token_ids; completions: prompt
    SGLANG = "sglang"  # chat: input_ids
    NONE = "none"


_Fields = dict[str, msgspec.Raw | bytes]
_Give = Callable[[JsonObject, bytes], bytes | None]  # the body, and the ids as a JSON list

_NVEXT: Final = "nvext"
_TOKEN_DATA: Final = "token_data"  # noqa: S105  # a field's name
_KV_TRANSFER: Final = "kv_transfer_params"
_PROMPT_IDS: Final = "prompt_token_ids"
_INPUT_IDS: Final = "input_ids"

# Dynamo 1.6.1 answers 400 to no messages at all.
_STUB: Final = b'[{"role":"user","content":"."}]'

# By the object they stand in, None for the body itself.
_OWNED: Final[Mapping[str | None, frozenset[str]]] = {
    # SGLang 0.5: the ids of a chat, and the rank a request is pinned to (GenerateReqInput). The first name is
    # what other servers know the ids by.
    None: frozenset(
        {_PROMPT_IDS, _INPUT_IDS, "routed_dp_rank", "data_parallel_rank", "disagg_prefill_dp_rank"}
    ),
    # NVIDIA Dynamo 1.6: the ids, and the workers a request is pinned to (NvExt of its OpenAI protocol).
    _NVEXT: frozenset(
        {
            *(_TOKEN_DATA, "backend_instance_id", "decode_worker_id", "prefill_worker_id"),
            *("dp_rank", "prefill_dp_rank"),
        }
    ),
    # vLLM 0.32 takes ids for chats from here.
    _KV_TRANSFER: frozenset({_PROMPT_IDS}),
}


def strip(body: JsonObject) -> bytes:
    """The body without the fields that the chain owns; the very same bytes where it has none of them."""
    kept = _kept(body)
    return body.text if kept is None else join(kept)


def hand_over(
    handoff: Handoff,
    body: JsonObject,
    record: TokenRecord,
    *,
    strip_messages: bool = False,
    ids_json: Callable[[TokenIds], bytes] = ids_as_json,
) -> bytes | None:
    """The body with the record's ids where this engine takes them; None where it would take none.

    The record must be the engine's own ids, and not be empty: an engine would take an empty list at its word.
    `strip_messages`: a chat's messages give way to one of a single character, for engines that read them no
    more. What they would have said against the messages then goes unsaid. `ids_json` is asked for the ids as
    a JSON list where they are given to the engine.
    """
    if not record.token_ids:
        raise ValueError("no token ids to hand over")
    give = _GIVES.get((handoff, record.kind))
    if give is None:
        return None
    stubbed = strip_messages and record.kind is Kind.CHAT
    return give(_stubbed(body) if stubbed else body, ids_json(record.token_ids))


def _stubbed(body: JsonObject) -> JsonObject:
    fields: _Fields = {**body.fields, "messages": _STUB}
    return read(join(fields))


def _give_dynamo(body: JsonObject, ids: bytes) -> bytes:
    """nvext.token_data, for chats and completions alike. A client's other nvext fields stay."""
    return _with_member(body, _NVEXT, _TOKEN_DATA, ids)


def _give_vllm_chat(body: JsonObject, ids: bytes) -> bytes | None:
    """kv_transfer_params.prompt_token_ids, beside whatever disaggregation puts there.

    vLLM passes ids over for `echo`, and has no text to return for `return_prompt_text` when it is given them.
    """
    if _is_set(body, "echo") or _is_set(body, "return_prompt_text"):
        return None
    return _with_member(body, _KV_TRANSFER, _PROMPT_IDS, ids)


def _give_vllm_completion(body: JsonObject, ids: bytes) -> bytes | None:
    """The ids as the prompt. For `echo` vLLM would decode them, and that need not give the client's text."""
    if _is_set(body, "echo"):
        return None
    fields: _Fields = dict(body.fields) if (kept := _kept(body)) is None else kept
    fields["prompt"] = ids
    return join(fields)


def _give_sglang_chat(body: JsonObject, ids: bytes) -> bytes:
    """input_ids, at the top."""
    kept = _kept(body)
    return _insert(body if kept is None else read(join(kept)), b'"input_ids":', ids)


_GIVES: Final[Mapping[tuple[Handoff, Kind], _Give]] = {
    (Handoff.DYNAMO, Kind.CHAT): _give_dynamo,
    (Handoff.DYNAMO, Kind.COMPLETION): _give_dynamo,
    (Handoff.VLLM, Kind.CHAT): _give_vllm_chat,
    (Handoff.VLLM, Kind.COMPLETION): _give_vllm_completion,
    (Handoff.SGLANG, Kind.CHAT): _give_sglang_chat,
}


def _is_set(body: JsonObject, name: str) -> bool:
    value = body.fields.get(name)
    return value is not None and bytes(value) not in {b"false", b"null"}


def _with_member(body: JsonObject, outer: str, inner: str, ids: bytes) -> bytes:
    """The body with the ids as a member of one of its objects, whose other members stay."""
    kept = _kept(body)
    if kept is None and outer not in body.fields:
        return _insert(body, b'"%b":{"%b":' % (outer.encode(), inner.encode()), ids, b"}")
    fields: _Fields = dict(body.fields) if kept is None else kept
    fields[outer] = join({**_subfields(fields.get(outer, b"{}")), inner: ids})
    return join(fields)


def _insert(body: JsonObject, *member: bytes) -> bytes:
    """The body with one more member, given in pieces, each of which is copied once."""
    text = memoryview(body.text)
    end = body.text.rindex(b"}")
    separator = b"," if body.fields else b""
    return b"".join((text[:end], separator, *member, text[end:]))


def _kept(body: JsonObject) -> _Fields | None:
    """What is left when the chain's fields are gone, or None where there are none."""
    kept: _Fields = {name: value for name, value in body.fields.items() if name not in _OWNED[None]}
    changed = len(kept) < len(body.fields)
    for name, owned in _OWNED.items():
        if name is not None and name in kept:
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
