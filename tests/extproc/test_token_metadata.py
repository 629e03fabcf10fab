"""The record's encoding, held to protobuf's own JSON form and to hostile peers."""

import base64
import json

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from extproc.pb.tokenext.v1.token_record_pb2 import TokenRecord as TokenRecordProto
from extproc.token_metadata import (
    MAX_ID_COUNT,
    Kind,
    RecordError,
    RecordFault,
    TokenIds,
    TokenRecord,
    decode,
    encode,
)

ids = st.lists(st.integers(0, 2**32 - 1), max_size=50).map(TokenIds.pack)
records = st.builds(
    TokenRecord,
    model=st.text(max_size=10),
    tokenizer_digest=st.text(max_size=10),
    token_ids=ids,
    kind=st.sampled_from(Kind),
    engine_exact=st.booleans(),
    reason=st.text(max_size=10),
)
RECORD = TokenRecord("m", "sha256:0", TokenIds.pack([1, 2, 3]), Kind.CHAT, engine_exact=True)


@given(records)
def test_what_is_encoded_is_decoded(record):
    assert decode(encode(record)) == record


@given(records)
def test_the_encoding_is_protobufs_json_form_both_ways(record):
    proto = json_format.ParseDict(encode(record), TokenRecordProto())
    assert proto.token_ids == record.token_ids.packed
    assert proto.token_count == len(record.token_ids)
    assert json_format.MessageToDict(proto) == encode(record)
    for preserve in (True, False):
        as_json = json.loads(json_format.MessageToJson(proto, preserving_proto_field_name=preserve))
        assert decode(as_json) == record


@given(records)
def test_a_record_survives_envoys_struct(record):
    struct = Struct()
    struct.update({"record": encode(record)})
    assert decode(json_format.MessageToDict(struct)["record"]) == record


@given(
    st.recursive(
        st.none() | st.booleans() | st.floats() | st.integers() | st.text(),
        lambda inner: (
            st.lists(inner) | st.dictionaries(st.sampled_from([*encode(RECORD), "token_ids", "x"]), inner)
        ),
        max_leaves=10,
    )
)
def test_whatever_a_peer_sends_is_a_record_or_a_record_error(value):
    try:
        record = decode(value)
    except RecordError:
        return
    assert decode(encode(record)) == record


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"tokenCount": 4}, RecordFault.COUNT_MISMATCH),
        ({"tokenIds": "AQAAAA"}, RecordFault.COUNT_MISMATCH),
        ({"tokenIds": base64.b64encode(b"12345").decode()}, RecordFault.COUNT_MISMATCH),
        ({"tokenIds": "*"}, RecordFault.BAD_BASE64),
        ({"tokenIds": "é"}, RecordFault.BAD_BASE64),
        ({"tokenIds": 1}, RecordFault.BAD_FIELD),
        ({"tokenCount": "3"}, RecordFault.BAD_FIELD),
        ({"tokenCount": float("nan")}, RecordFault.COUNT_MISMATCH),
        ({"tokenCount": -1}, RecordFault.COUNT_MISMATCH),
        ({"tokenCount": MAX_ID_COUNT + 1}, RecordFault.TOO_LARGE),
        ({"engineExact": "true"}, RecordFault.BAD_FIELD),
        ({"model": 1}, RecordFault.BAD_FIELD),
        ({"kind": "KIND_EMBEDDING"}, RecordFault.UNKNOWN_KIND),
        ({"kind": None}, RecordFault.UNKNOWN_KIND),
    ],
)
def test_a_corrupt_record_is_refused_with_its_fault(change, fault):
    with pytest.raises(RecordError) as caught:
        decode({**encode(RECORD), **change})
    assert caught.value.fault is fault


@pytest.mark.parametrize("value", [None, [], "x", 1.0])
def test_what_is_no_object_is_no_record(value):
    with pytest.raises(RecordError) as caught:
        decode(value)
    assert caught.value.fault is RecordFault.NOT_AN_OBJECT


def test_fields_of_later_versions_are_passed_over():
    assert decode({**encode(RECORD), "hereafter": "AAAA"}) == RECORD


def test_an_oversized_record_is_refused_before_its_ids_are_decoded():
    with pytest.raises(RecordError) as caught:
        decode({**encode(RECORD), "tokenIds": "A" * (MAX_ID_COUNT * 6 + 1)})
    assert caught.value.fault is RecordFault.TOO_LARGE


def test_url_safe_base64_without_padding_is_read():
    packed = bytes([0xFB, 0xFF, 0xFE, 0x00])
    encoded = base64.urlsafe_b64encode(packed).decode().rstrip("=")
    assert "-" in encoded or "_" in encoded
    record = decode({"kind": "KIND_COMPLETION", "tokenCount": 1, "tokenIds": encoded})
    assert record.token_ids.packed == packed


@given(st.lists(st.integers(0, 2**32 - 1), max_size=20))
def test_ids_pack_as_little_endian_and_unpack_as_integers(values):
    packed = TokenIds.pack(values)
    assert packed.packed == b"".join(value.to_bytes(4, "little") for value in values)
    assert packed.as_array().tolist() == values
    assert len(packed) == len(values)
