"""Answers in vLLM's shapes. Ids come as JSON lists, and are not looked at.

vLLM 0.32: entrypoints/scale_out/token_in_token_out/protocol.py (GenerateRequest),
entrypoints/serve/tokenize/protocol.py, entrypoints/openai/models/protocol.py.
"""

import json
from collections.abc import Mapping, Sequence

import orjson

from extproc.verdict import JsonValue
from tokenext.catalog import Catalog
from tokenext.render_api.bodies import Rendering
from tokenext.render_api.prompt_fields import ChatFields

__all__ = ["detokenized", "generate_request", "models", "tokenized"]


def generate_request(
    request_id: str,
    ids: bytes,
    *,
    asked: Rendering,
    sampling_params: Mapping[str, JsonValue],
) -> bytes:
    """One GenerateRequest with all of its 17 keys. Of the request itself five fields come back."""
    stream = bool(asked.sampling.stream)
    hides_reasoning = isinstance(asked.typed, ChatFields) and not asked.typed.include_reasoning
    before = {"request_id": request_id}
    after = {
        "token_offsets": None,
        "features": None,
        "content_parts": None,
        "sampling_params": sampling_params,
        "model": asked.typed.model,
        "reasoning_ended": True if hides_reasoning else None,
        "reasoning_parser_kwargs": None,
        "return_token_ids": None,
        "output_mode": "tokens",
        "stream": stream,
        "stream_options": _stream_options(asked.sampling.stream_options) if stream else None,
        "cache_salt": asked.fields.value("cache_salt"),
        "priority": asked.sampling.priority,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
    }
    return _spliced(before, "token_ids", ids, after)


def tokenized(ids: bytes, *, count: int, max_model_len: int | None, pieces: Sequence[str] | None) -> bytes:
    before = {"count": count, "max_model_len": max_model_len}
    return _spliced(before, "tokens", ids, {"token_strs": pieces})


def detokenized(text: str) -> bytes:
    return orjson.dumps({"prompt": text})


def models(catalog: Catalog, *, created: int) -> bytes:
    """One entry for each name that requests may use. `created` is in seconds since 1970."""
    data = [
        {
            "id": name,
            "object": "model",
            "created": created,
            "owned_by": "tokenext",
            "root": model.name,
            "parent": model.name if name in model.loras else None,
            "max_model_len": model.max_model_len,
        }
        for model in catalog.models
        for name in (model.name, *model.aliases, *model.loras)
    ]
    return orjson.dumps({"object": "list", "data": data})


def _spliced(before: Mapping[str, JsonValue], name: str, ids: bytes, after: Mapping[str, object]) -> bytes:
    head, tail = _dumps(before), _dumps(after)
    return b"".join((head[:-1], b',"%b":' % name.encode(), ids, b",", tail[1:]))


def _dumps(value: Mapping[str, object]) -> bytes:
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits and half surrogate pairs, which a client may have carried on
        return json.dumps(value, separators=(",", ":")).encode()


def _stream_options(given: JsonValue) -> JsonValue:
    if not isinstance(given, dict):
        return None
    return {"include_usage": False, "continuous_usage_stats": False, **given}
