"""The token record as a protobuf message, for the Tokenization RPC: record and rules are token_metadata's."""

from collections.abc import Mapping
from typing import Any, Final

from extproc.pb.tokenext.v1 import token_record_pb2
from extproc.token_metadata import (
    BYTES_PER_ID,
    MAX_HASH_BYTES,
    MAX_ID_COUNT,
    BlockHashes,
    Kind,
    RecordError,
    RecordFault,
    TokenIds,
    TokenRecord,
)

__all__ = ["from_proto", "to_proto"]

_NUMBERS: Final[Mapping[Kind, Any]] = {kind: token_record_pb2.Kind.Value(kind.value) for kind in Kind}
_KINDS: Final = {number: kind for kind, number in _NUMBERS.items()}


def to_proto(record: TokenRecord) -> Any:
    """As tokenext.v1.TokenRecord."""
    return token_record_pb2.TokenRecord(
        model=record.model,
        tokenizer_digest=record.tokenizer_digest,
        token_count=len(record.token_ids),
        token_ids=record.token_ids.packed,
        kind=_NUMBERS[record.kind],
        engine_exact=record.engine_exact,
        reason=record.reason,
        block_hashes=None
        if record.block_hashes is None
        else token_record_pb2.BlockHashes(
            scheme=record.block_hashes.scheme,
            block_size=record.block_hashes.block_size,
            hashes=record.block_hashes.hashes,
        ),
    )


def from_proto(message: Any) -> TokenRecord:
    """Raises RecordError for whatever cannot be trusted whole."""
    kind = _KINDS.get(message.kind)
    if kind is None:
        raise RecordError(RecordFault.UNKNOWN_KIND, "kind is none this version knows")
    if message.token_count > MAX_ID_COUNT:
        raise RecordError(RecordFault.TOO_LARGE, f"more than {MAX_ID_COUNT} ids")
    if len(message.token_ids) != message.token_count * BYTES_PER_ID:
        raise RecordError(RecordFault.COUNT_MISMATCH, "token_count and token_ids disagree")
    return TokenRecord(
        model=message.model,
        tokenizer_digest=message.tokenizer_digest,
        token_ids=TokenIds(message.token_ids),
        kind=kind,
        engine_exact=message.engine_exact,
        reason=message.reason,
        block_hashes=_block_hashes(message.block_hashes) if message.HasField("block_hashes") else None,
    )


def _block_hashes(message: Any) -> BlockHashes:
    if len(message.hashes) > MAX_HASH_BYTES:
        raise RecordError(RecordFault.TOO_LARGE, f"more than {MAX_HASH_BYTES} bytes of hashes")
    return BlockHashes(message.scheme, message.block_size, message.hashes)
