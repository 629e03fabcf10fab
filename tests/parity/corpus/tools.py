"""Tool definitions and calls of them, in the variety that clients send."""

import random
from typing import Any, Final

from tests.parity.corpus.json_text import Raw, Spelling, write
from tests.parity.corpus.text import hostile, prose

__all__ = ["arguments", "tool", "tool_call", "tool_choice", "tools"]

_Object = dict[str, Any]

_NAMES: Final = (
    "get_weather",
    "search",
    "book-flight",
    "f",
    "run_SQL2",
    "items",
    "calc",
    "send_mail",
    "lookup",
)
# `items`, `keys`, `get` and the like are method names of a dict, which templates may mistake them for.
_FIELDS: Final = (
    *(
        "city",
        "unit",
        "date",
        "query",
        "limit",
        "items",
        "keys",
        "values",
        "get",
        "type",
        "enum",
        "naïve",
        "a b",
    ),
    *("nested", "flag", "ratio", "tags", "length", "name", "0", "default"),
)
_NUMBERS: Final = (
    *("0", "1", "-7", "1.0", "0.1", "2.50", "1e3", "1E-7", "-0.0", "1e16", "1e22", "123456789.125", "5e-324"),
    *("9007199254740993", "18446744073709551615", "-9223372036854775808", "0.30000000000000004", "100000.0"),
)
# No two serializers agree on these.
_EXTREME_NUMBERS: Final = (
    "-0",
    "18446744073709551616",
    "123456789012345678901234567890",
    "1e-400",
    "1.7976931348623157e308",
)


def tools(rng: random.Random) -> list[_Object]:
    return [tool(rng, name) for name in rng.sample(_NAMES, rng.choice((1, 1, 1, 2, 3, 6)))]


def tool(rng: random.Random, name: str) -> _Object:
    """Sometimes without what is optional, with what is unknown, or in another order."""
    function: _Object = {"name": name}
    if rng.random() < 0.85:
        function["description"] = rng.choice((prose(rng, 12), prose(rng, 12), "", hostile_but_sound(rng)))
    elif rng.random() < 0.3:
        function["description"] = None
    if rng.random() < 0.9:
        function["parameters"] = _parameters(rng)
    if rng.random() < 0.1:
        function["strict"] = rng.choice((False, None))
    if rng.random() < 0.05:
        function["returns"] = {"type": "string"}
    entry: _Object = {"type": "function", "function": function}
    if rng.random() < 0.05:
        entry["cache_control"] = {"type": "ephemeral"}
    return _shuffled(rng, entry) if rng.random() < 0.1 else entry


def tool_call(rng: random.Random, number: int, names: list[str]) -> _Object:
    call: _Object = {
        "id": rng.choice(
            (f"call_{number:06d}", f"chatcmpl-tool-{rng.getrandbits(64):016x}", f"abcdefgh{number}")
        ),
        "type": "function",
        "function": {"name": rng.choice(names), "arguments": arguments(rng)},
    }
    if rng.random() < 0.05:
        call["index"] = number
    if rng.random() < 0.05:
        del call["type"]
    return _shuffled(rng, call) if rng.random() < 0.1 else call


def arguments(rng: random.Random) -> str | _Object:
    """A JSON string, mostly well-formed; sometimes empty, of another type, malformed, or no string at all."""
    draw = rng.random()
    if draw < 0.03:
        return rng.choice(("", "{}", " ", "null", "[1]", '"x"', "5"))
    if draw < 0.05:
        return rng.choice(
            ("{bad", '{"a": 1', "{'a': 1}", '{"a": NaN}', "{} {}", '{"a": "\\ud800"}', '{"a":1,"a":2}')
        )
    value = {rng.choice(_FIELDS): _value(rng, 2) for _ in range(rng.choice((0, 1, 2, 4)))}
    if draw < 0.08:
        return _without_raw(value)
    return write(value, Spelling.drawn(rng))


def tool_choice(rng: random.Random, names: list[str]) -> Any:
    named = {"type": "function", "function": {"name": rng.choice(names)}}
    return rng.choice(("auto", "auto", "none", "required", named, None))


def hostile_but_sound(rng: random.Random) -> str:
    """Hostile text without lone surrogates, so that the rest of the request still counts."""
    return hostile(rng).encode("utf-8", "replace").decode("utf-8")


def _parameters(rng: random.Random) -> _Object:
    draw = rng.random()
    if draw < 0.05:
        return {}
    properties = {name: _schema(rng, 2) for name in rng.sample(_FIELDS, rng.choice((0, 1, 2, 4)))}
    schema: _Object = {"type": "object", "properties": properties}
    if rng.random() < 0.6:
        schema["required"] = list(properties)[:2]
    if rng.random() < 0.1:
        schema["additionalProperties"] = rng.choice((True, False))
    if rng.random() < 0.1:
        schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    if draw < 0.1:
        del schema["type"]
    elif draw < 0.15:
        del schema["properties"]
    return _shuffled(rng, schema) if rng.random() < 0.15 else schema


def _schema(rng: random.Random, depth: int) -> _Object:
    kind = rng.choice(
        ("string", "string", "integer", "number", "boolean", "array", "object", "enum", "anyOf", "null")
    )
    if kind == "enum":
        return {"type": "string", "enum": [prose(rng, 2) for _ in range(rng.randint(1, 3))]}
    if kind == "anyOf":
        return {"anyOf": [{"type": "string"}, {"type": ["integer", "null"]}]}
    schema: _Object = {"type": kind}
    if rng.random() < 0.6:
        schema["description"] = prose(rng, 8)
    if kind in ("integer", "number") and rng.random() < 0.6:
        schema[rng.choice(("minimum", "maximum", "default", "multipleOf"))] = _number(rng)
    if kind == "array" and depth:
        schema["items"] = _schema(rng, depth - 1)
    if kind == "object" and depth:
        schema["properties"] = {name: _schema(rng, depth - 1) for name in rng.sample(_FIELDS, 2)}
    if rng.random() < 0.1:
        schema["default"] = _value(rng, 1)
    return schema


def _value(rng: random.Random, depth: int) -> Any:
    draw = rng.random()
    if depth and draw < 0.12:
        return [_value(rng, depth - 1) for _ in range(rng.randint(0, 3))]
    if depth and draw < 0.24:
        return {rng.choice(_FIELDS): _value(rng, depth - 1) for _ in range(rng.randint(0, 3))}
    if draw < 0.45:
        return _number(rng)
    return rng.choice((prose(rng, 3), prose(rng, 3), hostile_but_sound(rng), True, False, None, ""))


def _number(rng: random.Random) -> Raw:
    return Raw(rng.choice(_NUMBERS if rng.random() < 0.98 else _EXTREME_NUMBERS))


def _without_raw(value: Any) -> Any:
    if isinstance(value, Raw):
        return 1
    if isinstance(value, dict):
        return {key: _without_raw(item) for key, item in value.items()}
    return [_without_raw(item) for item in value] if isinstance(value, list) else value


def _shuffled(rng: random.Random, value: _Object) -> _Object:
    keys = list(value)
    rng.shuffle(keys)
    return {key: value[key] for key in keys}
