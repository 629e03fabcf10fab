import json

import orjson
import pytest

from tokenext.json_numbers import as_serde_reads, read_numbers


@pytest.mark.parametrize(
    ("text", "python", "serde"),
    [
        ("18446744073709551616", "18446744073709551616", "1.8446744073709552e+19"),
        ("-9223372036854775809", "-9223372036854775809", "-9.223372036854776e+18"),
        ("-0", "0", "-0.0"),
        ('{"a": [-0, 1], "b": -0}', '{"a": [0, 1], "b": 0}', '{"a": [-0.0, 1], "b": -0.0}'),
    ],
)
def test_odd_integers_are_integers_to_python_and_floats_to_serde(text, python, serde):
    value, odd = read_numbers(text.encode())
    assert odd
    assert json.dumps(value) == python
    assert json.dumps(as_serde_reads(value)) == serde


@pytest.mark.parametrize(
    "text",
    [
        *("18446744073709551615", "-9223372036854775808", "-0.0", "-0e1", "-10", "0", "1e4", "true"),
        *('"-0 and 18446744073709551616"', "1.0000000000000000001", '{"-0": 5}'),
    ],
)
def test_other_values_are_the_same_to_both(text):
    value, odd = read_numbers(text.encode())
    assert not odd
    assert json.dumps(value) == json.dumps(json.loads(text)) == json.dumps(as_serde_reads(value))


@pytest.mark.parametrize("text", ['"\\ud800"', "NaN", "1e400", "[" * 5000, "", "1234567890123456789012 x"])
def test_what_is_no_strict_json_is_an_error(text):
    with pytest.raises(orjson.JSONDecodeError):
        read_numbers(text.encode())
