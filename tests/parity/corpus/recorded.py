"""Recorded text as requests: ShareGPT's conversations, and others made of BFCL's questions and functions."""

import json
import random
import re
from collections.abc import Iterator
from itertools import islice
from typing import Any, Final

from tests.parity.corpus.case import CHAT, Case
from tests.parity.corpus.json_text import Spelling, write
from tests.parity.fetch import bfcl_entries, sharegpt_records

__all__ = ["sharegpt", "tool_conversations"]

_Object = dict[str, Any]

_ROLES: Final = {
    **dict.fromkeys(("human", "user"), "user"),
    **dict.fromkeys(("gpt", "chatgpt", "bing", "bard"), "assistant"),
    "system": "system",
}
# BFCL names types as its sources do; JSON Schema knows these.
_TYPES: Final = {"dict": "object", "float": "number", "double": "number", "tuple": "array", "any": "string"}
_POOL: Final = 8000  # records to draw from: as many as it takes to be varied, not so many as to be slow
_LONGEST: Final = 60_000  # characters of a conversation


def sharegpt(seed: int, count: int) -> Iterator[Case]:
    """Real conversations up to some user's turn, so that a model would answer next. Raises FetchError."""
    rng = random.Random(f"sharegpt:{seed}")
    usable = (messages for record in islice(sharegpt_records(), _POOL) if (messages := _turns(record)))
    drawn = rng.sample(list(usable), count)
    for number, messages in enumerate(drawn):
        users = [position for position, message in enumerate(messages) if message["role"] == "user"]
        cut = rng.choice(users) + 1
        yield Case(
            f"sharegpt-{seed}-{number:05d}",
            "sharegpt",
            CHAT,
            write({"messages": messages[:cut]}, Spelling.drawn(rng)),
        )


def tool_conversations(seed: int, count: int) -> Iterator[Case]:
    """Real questions with real functions, and made-up calls, results and answers. Raises FetchError."""
    rng = random.Random(f"bfcl:{seed}")
    for number, entry in enumerate(rng.sample(bfcl_entries(), count)):
        request = _tool_conversation(rng, entry)
        yield Case(f"bfcl-{seed}-{number:05d}", "bfcl", CHAT, write(request, Spelling.drawn(rng)))


def _turns(record: _Object) -> list[_Object]:
    """The messages of a record, or none where a role is unknown or no user begins."""
    turns = record.get("conversations", [])
    if any(turn["from"] not in _ROLES for turn in turns):
        return []
    messages = [{"role": _ROLES[turn["from"]], "content": turn["value"]} for turn in turns]
    first = next((message["role"] for message in messages if message["role"] != "system"), None)
    return messages if first == "user" and sum(len(m["content"]) for m in messages) < _LONGEST else []


def _tool_conversation(rng: random.Random, entry: _Object) -> _Object:
    functions = [_function(rng, function) for function in entry["function"]]
    messages: list[_Object] = [dict(message) for turn in entry["question"] for message in turn]
    while rng.random() < 0.7 and len(messages) < 12:
        calls = [_call(rng, rng.choice(functions)) for _ in range(rng.choice((1, 1, 2)))]
        messages.append(
            {
                "role": "assistant",
                "content": rng.choice((None, "", "Let me look that up.")),
                "tool_calls": calls,
            }
        )
        for call in calls:
            result = {"status": "ok", "value": rng.choice((1, 2.5, "näh", None, [1, 2])), "id": call["id"]}
            messages.append({"role": "tool", "tool_call_id": call["id"], "content": json.dumps(result)})
        if rng.random() < 0.5:
            messages.append({"role": "assistant", "content": "Done: see above."})
            messages.append(
                {"role": "user", "content": rng.choice(("Thanks! And tomorrow?", "Do it again, please."))}
            )
    return {
        "messages": messages,
        "tools": [{"type": "function", "function": function} for function in functions],
    }


def _function(rng: random.Random, function: _Object) -> _Object:
    """Names as OpenAI allows them; types as they are, or as JSON Schema has them."""
    known = {name: function[name] for name in ("name", "description", "parameters") if name in function}
    known["name"] = re.sub(r"[^A-Za-z0-9_-]", "_", known["name"])[:64]
    if rng.random() < 0.7:
        known["parameters"] = _with_json_types(known["parameters"])
    return known


def _with_json_types(schema: Any) -> Any:
    if isinstance(schema, list):
        return [_with_json_types(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    mapped = {key: _with_json_types(value) for key, value in schema.items()}
    if isinstance(mapped.get("type"), str):
        mapped["type"] = _TYPES.get(mapped["type"], mapped["type"].lower())
    return mapped


def _call(rng: random.Random, function: _Object) -> _Object:
    properties = (function.get("parameters") or {}).get("properties") or {}
    chosen = {name: _argument(rng, schema) for name, schema in properties.items() if rng.random() < 0.8}
    arguments = rng.choice(
        (json.dumps(chosen), json.dumps(chosen, separators=(",", ":"), ensure_ascii=False))
    )
    return {
        "id": f"call_{rng.getrandbits(32):08x}",
        "type": "function",
        "function": {"name": function["name"], "arguments": arguments},
    }


def _argument(rng: random.Random, schema: Any) -> Any:
    kind = str(schema.get("type", "string")) if isinstance(schema, dict) else "string"
    if isinstance(schema, dict) and isinstance(schema.get("enum"), list) and schema["enum"]:
        return rng.choice(schema["enum"])
    if kind in ("integer", "long"):
        return rng.randint(-5, 100_000)
    if kind in ("number", "float", "double"):
        return rng.choice((0.5, 1.0, 1e-7, 123456.789, -2.25, 1e21))
    if kind.lower() == "boolean":
        return rng.random() < 0.5
    if kind.lower() in ("array", "tuple", "arraylist"):
        return [_argument(rng, schema.get("items") or {}) for _ in range(rng.randint(0, 3))]
    if kind in ("object", "dict", "hashmap"):
        return {name: _argument(rng, inner) for name, inner in (schema.get("properties") or {}).items()}
    return rng.choice(("Paris", "São Paulo", "2026-01-31", 'say "hi"\n', "東京"))
