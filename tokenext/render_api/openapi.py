"""The OpenAPI document of the HTTP port: what is read of requests, and every status there can be."""

from collections.abc import Mapping
from typing import Any, Final

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
_SAMPLING: Final[_Schema] = {
    "max_tokens": {"type": ["integer", "null"], "minimum": 1},
    "temperature": {"type": ["number", "null"], "minimum": 0, "maximum": 2},
    "top_p": {"type": ["number", "null"], "exclusiveMinimum": 0, "maximum": 1},
    "n": {"type": ["integer", "null"], "minimum": 1, "maximum": 16384},
    "seed": {"type": ["integer", "null"]},
    "stop": {"anyOf": [_TEXT, {"type": "array", "items": _TEXT, "maxItems": 4}, {"type": "null"}]},
    "stream": {"type": ["boolean", "null"]},
    "cache_salt": {"type": ["string", "null"], "minLength": 1, "maxLength": 128},
}
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
_CHAT_FIELDS: Final[_Schema] = {
    "model": {"type": ["string", "null"]},
    "messages": _MESSAGES,
    "tools": {"type": ["array", "null"], "minItems": 1, "items": {"type": "object"}},
    "add_generation_prompt": {"type": "boolean", "default": True},
    "continue_final_message": {"type": "boolean", "default": False},
    "add_special_tokens": {"type": "boolean", "default": False},
    "chat_template_kwargs": {"type": ["object", "null"]},
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
    },
}


def document(version: str) -> _Schema:
    """As JSON types."""
    chat = _object({**_CHAT_FIELDS, **_SAMPLING}, "messages")
    completion = _object(
        {
            "model": {"type": ["string", "null"]},
            "prompt": {
                "anyOf": [
                    {"type": "string", "minLength": 1},
                    {"type": "array", "minItems": 1, "items": {"type": "string", "minLength": 1}},
                    {**_IDS, "minItems": 1},
                    {"type": "array", "minItems": 1, "items": {**_IDS, "minItems": 1}},
                ]
            },
            "add_special_tokens": {"type": "boolean", "default": True},
            **_SAMPLING,
        },
        "prompt",
    )
    tokenize = {
        "anyOf": [
            _object(
                {
                    "model": {"type": ["string", "null"]},
                    "prompt": _TEXT,
                    "add_special_tokens": {"type": "boolean", "default": True},
                    "return_token_strs": {"type": ["boolean", "null"]},
                },
                "prompt",
            ),
            _object({**_CHAT_FIELDS, "return_token_strs": {"type": ["boolean", "null"]}}, "messages"),
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
        },
    }
    detokenize = _object({"model": {"type": ["string", "null"]}, "tokens": _IDS}, "tokens")
    return {
        "openapi": "3.1.0",
        "info": {"title": "tokenext", "version": version, "description": "vLLM's render and tokenize API"},
        "paths": {
            "/v1/chat/completions/render": _post("Render a chat", chat, _RENDERED),
            "/v1/completions/render": _post(
                "Render completions", completion, {"type": "array", "items": _RENDERED}
            ),
            "/tokenize": _post("Tokenize a text or a chat", tokenize, tokenized),
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


def _object(properties: Mapping[str, Any], *required: str) -> _Schema:
    return {"type": "object", "required": [*required], "properties": {**properties}}


def _post(summary: str, request: _Schema, answer: _Schema) -> _Schema:
    refusals = {
        "400": "the request is at fault",
        "404": "no such model",
        "413": "the body is too large",
        "503": "busy: try again after Retry-After",
    }
    return {
        "post": {
            "summary": summary,
            "requestBody": {"required": True, "content": {"application/json": {"schema": request}}},
            "responses": {
                "200": _said("done", answer),
                **{status: _said(text, _ERROR) for status, text in refusals.items()},
            },
        }
    }


def _get(summary: str, answer: _Schema) -> _Schema:
    return {"get": {"summary": summary, "responses": {"200": _said("done", answer)}}}


def _said(description: str, schema: _Schema | None = None) -> _Schema:
    content = {} if schema is None else {"content": {"application/json": {"schema": schema}}}
    return {"description": description, **content}
