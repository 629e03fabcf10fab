import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokenext.json_object import NotAnObjectError, join, read

json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(st.characters(codec="utf-8")),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters(codec="utf-8")), inner),
    max_leaves=8,
)
json_objects = st.dictionaries(st.text(st.characters(codec="utf-8")), json_values)


@given(json_objects)
def test_an_object_that_is_split_and_joined_means_the_same(value):
    assert json.loads(join(read(json.dumps(value).encode()).fields)) == value


def test_values_keep_their_bytes():
    text = b'{"a": [ 1.50,\t"\\u00e9" ] , "b":{}}'
    assert join(read(text).fields) == b'{"a":[ 1.50,\t"\\u00e9" ],"b":{}}'


def test_the_last_of_two_equal_names_counts():
    assert bytes(read(b'{"a":1,"a":2}').fields["a"]) == b"2"


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'"text"',
        b"{",
        b'{"a":1}x',
        b'{"a":NaN}',
        b'{"\xff":1}',
        b'{"\\ud800":1}',
        b"\xef\xbb\xbf{}",
        b'{"a":' + b"[" * 500_000 + b"]" * 500_000 + b"}",
        b'{"a":' * 100_000,
    ],
)
def test_what_is_no_json_object_is_refused_without_a_crash(text):
    with pytest.raises(NotAnObjectError):
        read(text)
