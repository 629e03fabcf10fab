import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from extproc.token_metadata import TokenIds
from tests.tokenext.test_json_object import json_objects, json_values
from tokenext.handoff import give_dynamo, strip
from tokenext.json_object import read

IDS = TokenIds.pack([1, 2**32 - 1, 0])
TOKEN_DATA = [1, 2**32 - 1, 0]
OWNED = [
    "token_data",
    "backend_instance_id",
    "decode_worker_id",
    "prefill_worker_id",
    "dp_rank",
    "prefill_dp_rank",
]

owned_objects = st.dictionaries(st.sampled_from([*OWNED, "prompt_token_ids", "agent_hints"]), json_values)
bodies = st.builds(
    lambda plain, odd: {**plain, **odd},
    json_objects,
    st.dictionaries(
        st.sampled_from(["nvext", "kv_transfer_params", "prompt_token_ids", "messages"]),
        owned_objects | json_values,
    ),
)


def without_owned(body: dict) -> dict:
    kept = {name: value for name, value in body.items() if name != "prompt_token_ids"}
    for name, owned in (("nvext", OWNED), ("kv_transfer_params", ["prompt_token_ids"])):
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key not in owned}
    return kept


@given(bodies)
def test_a_hand_off_is_the_request_with_our_ids_in_place_of_the_clients(body):
    handed = json.loads(give_dynamo(read(json.dumps(body).encode()), IDS))
    expected = without_owned(body)
    nvext = expected.get("nvext")
    assert handed == {
        **expected,
        "nvext": {**(nvext if isinstance(nvext, dict) else {}), "token_data": TOKEN_DATA},
    }


@given(bodies)
def test_stripping_takes_out_what_the_chain_owns_and_nothing_else(body):
    assert json.loads(strip(read(json.dumps(body).encode()))) == without_owned(body)


@given(bodies)
def test_stripping_twice_is_stripping_once(body):
    once = strip(read(json.dumps(body).encode()))
    again = read(once)
    assert strip(again) is again.text


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"m","messages":[]}',
        b' { "nvext" : { "agent_hints" : {} } , "kv_transfer_params":null }\n',
        b'{"nvext":null,"prompt":[1,2]}',
        b'{"nvext":[{"token_data":[1]}]}',
        b'{"a":{"prompt_token_ids":[1]},"token_data":[1]}',
        b"{}",
    ],
)
def test_a_body_without_the_chains_fields_stays_the_very_same_bytes(text):
    body = read(text)
    assert strip(body) is body.text


def test_escaped_names_do_not_get_past_the_chain():
    body = read(b'{"nve\\u0078t":{"token\\u005fdata":[9]},"prompt_tok\\u0065n_ids":[9]}')
    assert json.loads(strip(body)) == {"nvext": {}}
    assert json.loads(give_dynamo(body, IDS)) == {"nvext": {"token_data": TOKEN_DATA}}


def test_ids_are_added_behind_the_last_field_without_touching_the_rest():
    text = b' {"model": "m",\t"temperature":1.50} \n'
    assert give_dynamo(read(text), TokenIds.pack([7, 8])) == (
        b' {"model": "m",\t"temperature":1.50,"nvext":{"token_data":[7,8]}} \n'
    )


def test_other_nvext_fields_of_the_client_keep_their_bytes():
    text = b'{"nvext":{"agent_hints":{"priority": 1.0},"token_data":[9]},"model":"m"}'
    assert give_dynamo(read(text), TokenIds.pack([7])) == (
        b'{"nvext":{"agent_hints":{"priority": 1.0},"token_data":[7]},"model":"m"}'
    )


def test_an_empty_object_takes_ids_too():
    assert give_dynamo(read(b"{ }"), TokenIds.pack([7])) == b'{ "nvext":{"token_data":[7]}}'


def test_no_ids_are_never_handed_over():
    with pytest.raises(ValueError, match="no token ids"):
        give_dynamo(read(b"{}"), TokenIds(b""))
