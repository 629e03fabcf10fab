import json

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from extproc.token_metadata import Kind, TokenIds, TokenRecord
from tests.tokenext.test_json_object import json_objects, json_values
from tokenext.handoff import Handoff, hand_over, strip
from tokenext.json_object import read

CHAT, COMPLETION = Kind.CHAT, Kind.COMPLETION
IDS = [1, 2**32 - 1, 0]
OWNED_NVEXT = [
    "token_data",
    "backend_instance_id",
    "decode_worker_id",
    "prefill_worker_id",
    "dp_rank",
    "prefill_dp_rank",
]
OWNED_TOP = [
    "prompt_token_ids",
    "input_ids",
    "routed_dp_rank",
    "data_parallel_rank",
    "disagg_prefill_dp_rank",
]

owned_objects = st.dictionaries(
    st.sampled_from([*OWNED_NVEXT, "prompt_token_ids", "agent_hints", "do_remote_prefill"]), json_values
)
bodies = st.builds(
    lambda plain, odd: {**plain, **odd},
    json_objects,
    st.dictionaries(
        st.sampled_from(["nvext", "kv_transfer_params", "messages", "prompt", "echo", *OWNED_TOP]),
        owned_objects | json_values,
    ),
)


patient = settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # large bodies, busy machines


def record(kind: Kind, *ids: int) -> TokenRecord:
    return TokenRecord("m", "sha256:0", TokenIds.pack(list(ids)), kind, engine_exact=True)


def handed(handoff: Handoff, kind: Kind, body: dict | bytes, *ids: int) -> bytes | None:
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    return hand_over(handoff, read(text), record(kind, *(ids or IDS)))


def without_owned(body: dict) -> dict:
    kept = {name: value for name, value in body.items() if name not in OWNED_TOP}
    for name, owned in (("nvext", OWNED_NVEXT), ("kv_transfer_params", ["prompt_token_ids"])):
        if isinstance(kept.get(name), dict):
            kept[name] = {key: value for key, value in kept[name].items() if key not in owned}
    return kept


def with_member(body: dict, outer: str, inner: str) -> dict:
    kept = without_owned(body)
    own = kept.get(outer)
    return {**kept, outer: {**(own if isinstance(own, dict) else {}), inner: IDS}}


class TestAnyBody:
    """The request with our ids in place of the client's, and nothing else changed."""

    @patient
    @given(bodies, st.sampled_from([CHAT, COMPLETION]))
    def test_for_dynamo(self, body, kind):
        assert json.loads(handed(Handoff.DYNAMO, kind, body)) == with_member(body, "nvext", "token_data")

    @patient
    @given(bodies)
    def test_for_a_chat_of_vllm(self, body):
        given_ids = handed(Handoff.VLLM, CHAT, body)
        if body.get("echo") not in (None, False):
            assert given_ids is None
        elif given_ids is not None:
            assert json.loads(given_ids) == with_member(body, "kv_transfer_params", "prompt_token_ids")

    @patient
    @given(bodies)
    def test_for_a_completion_of_vllm(self, body):
        given_ids = handed(Handoff.VLLM, COMPLETION, body)
        if given_ids is not None:
            assert json.loads(given_ids) == {**without_owned(body), "prompt": IDS}

    @patient
    @given(bodies)
    def test_for_a_chat_of_sglang(self, body):
        assert json.loads(handed(Handoff.SGLANG, CHAT, body)) == {**without_owned(body), "input_ids": IDS}

    @patient
    @given(bodies)
    def test_stripping_takes_out_what_the_chain_owns_and_nothing_else(self, body):
        assert json.loads(strip(read(json.dumps(body).encode()))) == without_owned(body)

    @patient
    @given(bodies)
    def test_stripping_twice_is_stripping_once(self, body):
        again = read(strip(read(json.dumps(body).encode())))
        assert strip(again) is again.text


# White space between members is lost where a member changes; inside a value it stays.
GOLDEN = [
    # Dynamo
    (Handoff.DYNAMO, CHAT, b' {"model": "m",\t"temperature":1.50} \n',
     b' {"model": "m",\t"temperature":1.50,"nvext":{"token_data":[7,8]}} \n'),
    (Handoff.DYNAMO, COMPLETION, b'{"model":"m","prompt":"hi"}',
     b'{"model":"m","prompt":"hi","nvext":{"token_data":[7,8]}}'),
    (Handoff.DYNAMO, CHAT, b'{"nvext":{"agent_hints":{"priority": 1.0},"token_data":[9]},"model":"m"}',
     b'{"nvext":{"agent_hints":{"priority": 1.0},"token_data":[7,8]},"model":"m"}'),
    (Handoff.DYNAMO, CHAT, b"{ }", b'{ "nvext":{"token_data":[7,8]}}'),
    (Handoff.DYNAMO, CHAT, b'{"nvext":null}', b'{"nvext":{"token_data":[7,8]}}'),
    # vLLM, chats
    (Handoff.VLLM, CHAT, b'{"model":"m","messages": [ ],"stream":true}',
     b'{"model":"m","messages": [ ],"stream":true,"kv_transfer_params":{"prompt_token_ids":[7,8]}}'),
    (Handoff.VLLM, CHAT, b'{"kv_transfer_params":{"do_remote_prefill": true,"remote_host":"h"},"model":""}',
     b'{"kv_transfer_params":{"do_remote_prefill":true,"remote_host":"h","prompt_token_ids":[7,8]},"model":""}'),
    (Handoff.VLLM, CHAT, b'{"kv_transfer_params":{"prompt_token_ids":[9],"a":1},"echo":false}',
     b'{"kv_transfer_params":{"a":1,"prompt_token_ids":[7,8]},"echo":false}'),
    (Handoff.VLLM, CHAT, b'{"nvext":{"token_data":[9]},"input_ids":[9]}',
     b'{"nvext":{},"kv_transfer_params":{"prompt_token_ids":[7,8]}}'),
    (Handoff.VLLM, CHAT, b'{"echo":true}', None),
    (Handoff.VLLM, CHAT, b'{"return_prompt_text":true}', None),
    # vLLM, completions
    (Handoff.VLLM, COMPLETION, b'{"model":"m","prompt":"hi","max_tokens": 1}',
     b'{"model":"m","prompt":[7,8],"max_tokens":1}'),
    (Handoff.VLLM, COMPLETION, b'{"prompt":["hi"],"kv_transfer_params":{"a":1},"prompt_token_ids":[9]}',
     b'{"prompt":[7,8],"kv_transfer_params":{"a":1}}'),
    (Handoff.VLLM, COMPLETION, b'{"prompt":"hi","echo":true}', None),
    # SGLang
    (Handoff.SGLANG, CHAT, b'{"model":"m","messages":[]}', b'{"model":"m","messages":[],"input_ids":[7,8]}'),
    (Handoff.SGLANG, CHAT, b'{"input_ids":[9],"routed_dp_rank":1,"messages":[]}',
     b'{"messages":[],"input_ids":[7,8]}'),
    (Handoff.SGLANG, COMPLETION, b'{"prompt":"hi"}', None),
    # None
    (Handoff.NONE, CHAT, b'{"messages":[]}', None),
    (Handoff.NONE, COMPLETION, b'{"prompt":"hi"}', None),
]  # fmt: skip


@pytest.mark.parametrize(("handoff", "kind", "body", "expected"), GOLDEN)
def test_a_body_with_its_ids_byte_for_byte(handoff, kind, body, expected):
    assert handed(handoff, kind, body, 7, 8) == expected


@pytest.mark.parametrize(
    "text",
    [
        b'{"model":"m","messages":[]}',
        b' { "nvext" : { "agent_hints" : {} } , "kv_transfer_params":null }\n',
        b'{"nvext":null,"prompt":[1,2]}',
        b'{"nvext":[{"token_data":[1]}]}',
        b'{"a":{"prompt_token_ids":[1],"input_ids":[1]},"token_data":[1]}',
        b"{}",
    ],
)
def test_a_body_without_the_chains_fields_stays_the_very_same_bytes(text):
    body = read(text)
    assert strip(body) is body.text


def test_escaped_names_do_not_get_past_the_chain():
    body = b'{"nve\\u0078t":{"token\\u005fdata":[9]},"prompt_tok\\u0065n_ids":[9],"input\\u005fids":[9]}'
    assert json.loads(strip(read(body))) == {"nvext": {}}
    assert json.loads(handed(Handoff.DYNAMO, CHAT, body) or b"") == {"nvext": {"token_data": IDS}}


@pytest.mark.parametrize("handoff", list(Handoff))
def test_no_ids_are_never_handed_over(handoff):
    with pytest.raises(ValueError, match="no token ids"):
        hand_over(handoff, read(b"{}"), record(CHAT))


@pytest.mark.parametrize("handoff", [Handoff.DYNAMO, Handoff.VLLM, Handoff.SGLANG])
def test_messages_give_way_to_a_stub_only_where_ids_take_their_place(handoff):
    body = read(
        json.dumps({"model": "m", "messages": [{"role": "user", "content": "long"}], "n": 2}).encode()
    )
    given = json.loads(hand_over(handoff, body, record(CHAT, *IDS), strip_messages=True) or b"")
    assert given["messages"] == [{"role": "user", "content": "."}]
    kept = json.loads(hand_over(handoff, body, record(CHAT, *IDS)) or b"")
    assert {**given, "messages": kept["messages"]} == kept
    assert hand_over(Handoff.NONE, body, record(CHAT, *IDS), strip_messages=True) is None


def test_a_completion_has_no_messages_to_take_out():
    body = read(b'{"model":"m","prompt":"text"}')
    ids = record(COMPLETION, *IDS)
    assert hand_over(Handoff.DYNAMO, body, ids, strip_messages=True) == hand_over(Handoff.DYNAMO, body, ids)
