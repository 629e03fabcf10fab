"""The OpenAPI document of the HTTP port: what is read of requests, and every status there can be."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from tokenext.block_hashes import Scheme
from tokenext.render_api.hashes import HEADER, KEY
from tokenext.render_api.prompt_fields import ChatFields, CompletionFields, TokenizeFields
from tokenext.render_api.sampling import Sampling

__all__ = ["document"]

_Schema = dict[str, Any]

_TEXT: Final[_Schema] = {"type": "string"}
_IDS: Final[_Schema] = {"type": "array", "items": {"type": "integer", "minimum": 0}}
_ERROR: Final[_Schema] = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": _TEXT,
                "type": _TEXT,
                "param": {"type": ["string", "null"]},
                "code": {"type": "integer"},
            },
        }
    },
}
# Routing of bodies that are no JSON at all is Starlette's, and so is its word for them.
_UNREADABLE: Final[_Schema] = {"type": "object", "required": ["detail"], "properties": {"detail": _TEXT}}
_REF: Final = "#/components/schemas/{name}"
_SALT: Final[_Schema] = {"cache_salt": {"type": ["string", "null"], "minLength": 1, "maxLength": 128}}
_MESSAGES: Final[_Schema] = {
    "type": "array",
    "minItems": 1,
    "items": {
        "type": "object",
        "required": ["role"],
        "properties": {
            "role": {"enum": ["system", "developer", "user", "assistant", "tool"]},
            "content": {
                "anyOf": [
                    _TEXT,
                    {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "required": ["type", "text"],
                            "properties": {"type": {"const": "text"}, "text": _TEXT},
                        },
                    },
                    {"type": "null"},
                ]
            },
        },
    },
}
_HASHES_ASKED: Final[_Schema] = {
    "name": HEADER,
    "in": "header",
    "description": "true: the answer has block hashes, where the model's settings have block_hashes",
    "schema": {"type": "string", "enum": ["true", "false"]},
}
_HASHES: Final[_Schema] = {
    KEY: {
        "description": f"only with {HEADER}: true; null where there are none, or they cannot be told",
        "type": ["object", "null"],
        "required": ["scheme", "block_size", "hashes"],
        "properties": {
            "scheme": {"enum": [*Scheme]},
            "block_size": {"type": "integer", "minimum": 1},
            "hashes": {
                "type": "array",
                "items": {"type": "string", "pattern": "^([0-9]{1,20}|[0-9a-f]{64})$"},
            },
        },
    }
}
_RENDERED: Final[_Schema] = {
    "type": "object",
    "required": ["request_id", "token_ids", "sampling_params", "model"],
    "properties": {
        "request_id": _TEXT,
        "token_ids": _IDS,
        "sampling_params": {"type": "object"},
        "model": {"type": ["string", "null"]},
        "stream": {"type": "boolean"},
        "cache_salt": {"type": ["string", "null"]},
        "priority": {"type": "integer"},
        **_HASHES,
    },
}


def document(version: str) -> _Schema:
    """As JSON types."""
    chat_fields, completion_fields, sampling, tokenize_fields = _properties(
        ChatFields, CompletionFields, Sampling, TokenizeFields
    )
    chat = _object({**sampling, **chat_fields, **_SALT, "messages": _MESSAGES}, "messages")
    completion = _object(
        {
            **sampling,
            **completion_fields,
            **_SALT,
            "prompt": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
                    {**_IDS, "minItems": 1},
                    {"type": "array", "minItems": 1, "items": {**_IDS, "minItems": 1}},
                ]
            },
        },
        "prompt",
    )
    tokenize = {
        "anyOf": [
            _object({**tokenize_fields, "prompt": _TEXT}, "prompt"),
            _object({**tokenize_fields, "messages": _MESSAGES}, "messages"),
        ]
    }
    tokenized = {
        "type": "object",
        "required": ["count", "max_model_len", "tokens", "token_strs"],
        "properties": {
            "count": {"type": "integer"},
            "max_model_len": {"type": ["integer", "null"]},
            "tokens": _IDS,
            "token_strs": {"type": ["array", "null"], "items": _TEXT},
            **_HASHES,
        },
    }
    detokenize = _object({"model": {"type": ["string", "null"]}, "tokens": _IDS}, "tokens")
    return {
        "openapi": "3.1.0",
        "info": {"title": "tokenext", "version": version, "description": "vLLM's render and tokenize API"},
        "paths": {
            "/v1/chat/completions/render": _post("Render a chat", chat, _RENDERED, _HASHES_ASKED),
            "/v1/completions/render": _post(
                "Render completions", completion, {"type": "array", "items": _RENDERED}, _HASHES_ASKED
            ),
            "/tokenize": _post("Tokenize a text or a chat", tokenize, tokenized, _HASHES_ASKED),
            "/detokenize": _post(
                "Text of ids",
                detokenize,
                {"type": "object", "required": ["prompt"], "properties": {"prompt": _TEXT}},
            ),
            "/v1/models": _get("Models", {"type": "object"}),
            "/version": _get("Version", {"type": "object"}),
            "/health": {
                "get": {"summary": "Health", "responses": {"200": _said("ready"), "503": _said("not")}}
            },
        },
    }


def _properties(*structs: type[msgspec.Struct]) -> list[_Schema]:
    """The fields of each, described by the very types that they are read into."""
    _, components = msgspec.json.schema_components(structs, ref_template=_REF)
    found = [components[struct.__name__]["properties"] for struct in structs]
    tool = components["Tool"]
    return [_inlined(properties, tool) for properties in found]


def _inlined(value: Any, tool: _Schema) -> Any:
    if isinstance(value, dict):
        return (
            tool
            if value.get("$ref") == _REF.format(name="Tool")
            else {name: _inlined(each, tool) for name, each in value.items()}
        )
    return [_inlined(each, tool) for each in value] if isinstance(value, list) else value


def _object(properties: Mapping[str, Any], *required: str) -> _Schema:
    return {"type": "object", "required": [*required], "properties": {**properties}}


def _post(summary: str, request: _Schema, answer: _Schema, *parameters: _Schema) -> _Schema:
    refusals = {
        "404": "no such model",
        "413": "the body is too large",
        "503": "busy: try again after Retry-After",
    }
    return {
        "post": {
            "summary": summary,
            "parameters": [*parameters],
            "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
            "responses": {
                "200": _said("done", answer),
                **{status: _said(text, _ERROR) for status, text in refusals.items()},
                "400": _said("the request is at fault", {"anyOf": [_ERROR, _UNREADABLE]}),
            },
        }
    }


def _get(summary: str, answer: _Schema) -> _Schema:
    return {"get": {"summary": summary, "responses": {"200": _said("done", answer)}}}


def _said(description: str, schema: _Schema | None = None) -> _Schema:
    content = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    return {"description": description, **content}
