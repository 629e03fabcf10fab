import json

import pytest

from epp_adapter.request_model import read_request_body


@pytest.mark.parametrize(
    "body", [b"", b"text", b"[]", b'"model"', b"{", b'{"model": "a"} {}', b"\xff\xfe", b'{"a": NaN}']
)
def test_what_is_no_json_object_is_none(body):
    assert read_request_body(body) is None


@pytest.mark.parametrize("body", [b"{}", b'{"model": 7}', b'{"model": null}', b'{"Model": "a"}'])
def test_a_body_without_a_model_names_none(body):
    assert read_request_body(body).model is None


def test_only_the_model_changes():
    number = b"123456789012345678901234567890"
    body = b'{"temperature": 1.10, "seed": %b, "model" : "a\\/b", "n": {"model": "a"}}' % number
    read = read_request_body(body)
    assert read.model == "a/b"
    changed = read.with_model('gr\u00fcn"e')
    assert json.loads(changed) == json.loads(body) | {"model": 'gr\u00fcn"e'}
    assert b'"temperature":1.10' in changed
    assert b"123456789012345678901234567890" in changed


def test_of_a_repeated_key_the_last_value_counts():
    assert read_request_body(b'{"model": "a", "model": "b"}').model == "b"
