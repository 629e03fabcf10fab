"""What HTTP has to say: bodies that are no JSON, headers, routes; and the way back from ids to text."""

import json
from collections.abc import Iterator
from typing import Final

from tests.e2e_render.asked import (
    CHAT,
    COMPLETION,
    DETOKENIZE,
    JSON_HEADERS,
    NAME,
    TOKENIZE,
    Asked,
    asking,
)
from tests.e2e_render.field_families import HELLO

__all__ = ["http_families"]

CHAT_BODY: Final = json.dumps({"model": NAME, "messages": HELLO}).encode()
BROKEN: Final = (
    ("cut", b'{"model": "tiny-qwen3", "messages": ['),
    ("a trailing comma", b'{"model": "tiny-qwen3",}'),
    ("an opening brace", b"{"),
    ("empty", b""),
    ("none", None),
    ("a list", b"[]"),
    ("a text", b'"hello"'),
    ("null", b"null"),
    ("a number", b"5"),
    ("no UTF-8", b'{"model": "\xff\xfe", "messages": []}'),
    ("too deep", b"[" * 100_000),
    ("an empty object", b"{}"),
)
TEXTS: Final = (
    ("NaN", b'{"messages": [{"role":"user","content":"x"}], "temperature": NaN}'),
    ("Infinity", b'{"messages": [{"role":"user","content":"x"}], "temperature": Infinity}'),
    (
        "a name twice",
        b'{"model": "nope", "model": "tiny-qwen3", "messages": [{"role":"user","content":"x"}]}',
    ),
    ("a byte order mark", b'\xef\xbb\xbf{"messages": [{"role":"user","content":"x"}]}'),
    ("a lone surrogate", b'{"messages": [{"role":"user","content":"a\\ud800b"}]}'),
    ("NUL", b'{"messages": [{"role":"user","content":"a\\u0000b"}]}'),
)
CONTENT_TYPES: Final = (
    "application/json; charset=utf-8",
    "APPLICATION/JSON",
    "application/problem+json",
    "text/plain",
    "",
)
ROUTES: Final = (
    *(("GET", path) for path in ("/v1/models", "/health", "/version", "/openapi.json", "/nothing", "/")),
    *(("GET", path) for path in (CHAT, COMPLETION, TOKENIZE, DETOKENIZE, "/v1/models/tiny-qwen3")),
    *(("HEAD", path) for path in ("/health", "/v1/models", "/version")),
    *(("POST", path) for path in ("/health", "/v1/models", "/v1/chat/completions", "/v1/completions")),
    *(("POST", path) for path in ("/v1/tokenize", CHAT + "/", TOKENIZE + "/", "/inference/v1/generate")),
    *((method, CHAT) for method in ("PUT", "DELETE", "PATCH")),
)
IDS: Final = (
    *(
        [],
        [9707, 11, 1879],
        [151644, 872, 198, 13048, 151645],
        [149],
        [9707, 151_935],
        [151_936],
        [9707, 10**6],
    ),
    *([2**31], [2**32 - 1], [2**32], [2**63 - 1], [2**63], [2**70], [-1], [64] * 5000),
    *([9707.0], [1.5], ["9707"], ["x"], [True], [[9707]], [None], None, 5, "9707", {}),
)


def http_families() -> Iterator[Asked]:
    for path in (CHAT, COMPLETION, TOKENIZE, DETOKENIZE):
        for name, body in BROKEN:
            yield Asked(f"{path}: body {name}", "broken bodies", path, body)
    for name, body in TEXTS:
        yield Asked(f"chat: {name}", "broken bodies", CHAT, body)
    yield Asked("tokenize: a lone surrogate", "broken bodies", TOKENIZE, b'{"prompt":"a\\ud800b"}')
    for kind in CONTENT_TYPES:
        headers = {"content-type": kind} if kind else {"content-type": ""}
        yield Asked(f"chat: content-type {kind!r}", "headers", CHAT, CHAT_BODY, headers)
        yield Asked(f"chat: content-type {kind!r} and no JSON", "headers", CHAT, b"{", headers)
    for name, value in (
        ("x-request-id", "mine-1"),
        ("x-request-id", ""),
        ("x-request-id", "r" * 3000),
        ("accept-encoding", "gzip"),
        ("authorization", "Bearer x"),
        ("traceparent", f"00-{'1' * 32}-{'2' * 16}-01"),
    ):
        headers = {**JSON_HEADERS, name: value}
        yield Asked(f"chat: {name} {value[:20]!r}", "headers", CHAT, CHAT_BODY, headers)
    yield asking(
        "headers",
        "both request ids",
        CHAT,
        {"messages": HELLO, "request_id": "body"},
        **{"x-request-id": "head"},
    )
    yield asking(
        "headers", "ids of two prompts", COMPLETION, {"prompt": ["a", "b"]}, **{"x-request-id": "head"}
    )
    yield Asked("chat: a query", "headers", f"{CHAT}?a=b", CHAT_BODY)
    for method, path in ROUTES:
        body = b"{}" if method == "POST" else None
        yield Asked(f"{method} {path}", "routes", path, body, method=method)
    for number, ids in enumerate(IDS):
        yield asking("detokenize", f"detokenize {number}: {str(ids)[:40]}", DETOKENIZE, {"tokens": ids})
    yield asking("detokenize", "detokenize: no tokens", DETOKENIZE, {"x": 1})
    yield asking("detokenize", "detokenize: unknown model", DETOKENIZE, {"tokens": [1], "model": "nope"})
    yield asking("detokenize", "detokenize: model a number", DETOKENIZE, {"tokens": [1], "model": 7})
    yield asking(
        "detokenize", "detokenize: no field", DETOKENIZE, {"tokens": [151644], "skip_special_tokens": True}
    )
