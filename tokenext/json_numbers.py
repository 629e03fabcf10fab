"""Integers that engines read in different ways: serde makes floats of them, Python does not.

serde_json (Dynamo) keeps integers of 64 bits, signed or not. It reads wider ones as floats, and `-0` as -0.0,
where Python reads 0. Such numbers are rare, so they are looked for before anything is done about them.
"""

import json
import re
from typing import Final

import orjson

from extproc.verdict import JsonValue

__all__ = ["as_serde_reads", "read_numbers"]

# The shortest run of digits that may be beyond 64 bits; a minus zero without fraction or exponent.
_ODD_INTEGER: Final = re.compile(rb"\d{19}|-0(?![.\deE])")


class _MinusZero(int):
    """`-0`: to Python it is 0, and prints so."""


def read_numbers(text: bytes | memoryview) -> tuple[JsonValue, bool]:
    """A JSON value with the integers that Python reads, and whether serde reads some as floats.

    Raises orjson.JSONDecodeError for what is no strict JSON: lone surrogates, NaN, numbers beyond a float's.
    """
    value: JsonValue = orjson.loads(text)
    if _ODD_INTEGER.search(text) is None:
        return value, False
    exact: JsonValue = json.loads(bytes(text), parse_int=_integer)
    return exact, _has_odd(exact)


def _integer(digits: str) -> int:
    return _MinusZero() if digits == "-0" else int(digits)


def _is_odd(value: JsonValue) -> bool:
    return isinstance(value, int) and (isinstance(value, _MinusZero) or not -(2**63) <= value < 2**64)


def _has_odd(value: JsonValue) -> bool:
    if isinstance(value, dict):
        return any(map(_has_odd, value.values()))
    if isinstance(value, list):
        return any(map(_has_odd, value))
    return _is_odd(value)


def as_serde_reads(value: JsonValue) -> JsonValue:
    """A value from `read_numbers` with floats where serde has them."""
    if isinstance(value, dict):
        return {key: as_serde_reads(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_serde_reads(item) for item in value]
    if isinstance(value, _MinusZero):
        return -0.0
    return float(value) if isinstance(value, int) and _is_odd(value) else value
