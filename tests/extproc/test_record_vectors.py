"""The shipped test vectors (proto/testdata), read by our reader and by protobuf's own: the two must agree."""

import json
from pathlib import Path

import pytest
from google.protobuf import json_format
from google.protobuf.struct_pb2 import Struct

from extproc import token_metadata, token_proto
from extproc.pb.tokenext.v1.token_record_pb2 import TokenRecord as TokenRecordProto
from extproc.token_metadata import BlockHashes, Kind, RecordError, RecordFault, TokenIds, TokenRecord

VECTORS = json.loads(
    (Path(__file__).resolve().parents[2] / "proto" / "testdata" / "token_records.json").read_text()
)
READABLE = [pytest.param(vector, id=vector["name"]) for vector in VECTORS["readable"]]
REFUSED = [pytest.param(vector, id=vector["name"]) for vector in VECTORS["refused"]]


def expected(vector) -> TokenRecord:
    fields = vector["expected"]
    ids = TokenIds.pack(fields["token_ids"])
    blocks = fields.get("block_hashes")
    if blocks is not None:
        blocks = BlockHashes(blocks["scheme"], blocks["block_size"], bytes.fromhex(blocks["hashes"]))
    return TokenRecord(**(fields | {"token_ids": ids, "kind": Kind(fields["kind"]), "block_hashes": blocks}))


@pytest.mark.parametrize("vector", READABLE)
def test_a_readable_vector_means_what_it_says(vector):
    assert token_metadata.decode(vector["record"]) == expected(vector)


@pytest.mark.parametrize("vector", READABLE)
def test_protobufs_own_json_parser_reads_the_same(vector):
    message = json_format.ParseDict(vector["record"], TokenRecordProto(), ignore_unknown_fields=True)
    assert token_proto.from_proto(message) == expected(vector)


@pytest.mark.parametrize("vector", READABLE)
def test_a_vector_survives_envoys_struct(vector):
    struct = Struct()
    struct.update({"record": vector["record"]})
    assert token_metadata.decode(json_format.MessageToDict(struct)["record"]) == expected(vector)


@pytest.mark.parametrize("vector", REFUSED)
def test_a_refused_vector_is_refused_for_its_fault(vector):
    with pytest.raises(RecordError) as caught:
        token_metadata.decode(vector["record"])
    assert caught.value.fault == vector["fault"]


def test_every_fault_has_a_vector():
    assert {vector["fault"] for vector in VECTORS["refused"]} == set(RecordFault)


@pytest.mark.parametrize("vector", READABLE)
def test_a_record_survives_its_protobuf_message(vector):
    record = expected(vector)
    message = token_proto.to_proto(record)
    assert token_proto.from_proto(TokenRecordProto.FromString(message.SerializeToString())) == record
    assert message.token_count == len(record.token_ids)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"token_count": 4}, RecordFault.COUNT_MISMATCH),
        ({"token_ids": b"\x01\x00\x00"}, RecordFault.COUNT_MISMATCH),
        ({"kind": 0}, RecordFault.UNKNOWN_KIND),
        ({"kind": 99}, RecordFault.UNKNOWN_KIND),
        ({"token_count": 4_000_001}, RecordFault.TOO_LARGE),
    ],
)
def test_a_message_that_cannot_be_trusted_whole_is_refused(change, fault):
    record = TokenRecord("m", "sha256:0", TokenIds.pack([1, 2, 3]), Kind.CHAT, engine_exact=True)
    message = token_proto.to_proto(record)
    for name, value in change.items():
        setattr(message, name, value)
    with pytest.raises(RecordError) as caught:
        token_proto.from_proto(message)
    assert caught.value.fault is fault
