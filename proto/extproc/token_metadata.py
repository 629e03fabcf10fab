"""The token record and its encoding in dynamic metadata; the only module that knows it.

A record stands in the proto3 JSON form of `tokenext.v1.TokenRecord` (proto/README.md). This module writes and
reads that form directly, because the ids are large: bytes go to base64 and back with no Python integer made.
The tests hold it to protobuf's own `json_format`.
"""

import sys
from array import array
from binascii import Error as Base64Error
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Final, TypeVar

# The standard library's base64 takes 40 times as long (docs/adr/0001).
from pybase64 import b64decode, b64encode

from extproc.verdict import JsonValue

__all__ = [
    "BYTES_PER_ID",
    "BlockHashes",
    "Kind",
    "RecordError",
    "RecordFault",
    "TokenIds",
    "TokenRecord",
    "decode",
    "encode",
    "spent",
]

T = TypeVar("T")

BYTES_PER_ID: Final = 4
MAX_ID_COUNT: Final = 4_000_000  # above every context window; a bound for what a peer may make us hold
MAX_HASH_BYTES: Final = 8_000_000  # vLLM's of 4 million ids in blocks of 16


class Kind(Enum):
    """`tokenext.v1.Kind`; the values are its names in proto3 JSON."""

    CHAT = "KIND_CHAT"
    COMPLETION = "KIND_COMPLETION"


class RecordFault(StrEnum):
    """Why a record cannot be used; safe as a metric label."""

    NOT_AN_OBJECT = "not_an_object"
    BAD_FIELD = "bad_field"
    UNKNOWN_KIND = "unknown_kind"
    BAD_BASE64 = "bad_base64"
    COUNT_MISMATCH = "count_mismatch"
    TOO_LARGE = "too_large"
    SPENT = "spent"  # an earlier reader took the ids out, see `spent`


class RecordError(ValueError):
    def __init__(self, fault: RecordFault, detail: str) -> None:
        super().__init__(f"{fault}: {detail}")
        self.fault = fault


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Token ids as unsigned 32 bit integers in little-endian order, as they travel."""

    packed: bytes

    def __len__(self) -> int:
        return len(self.packed) // BYTES_PER_ID

    def as_array(self) -> "array[int]":
        """The ids as an array('I'): indexable, and accepted by Dynamo's router without a list being made."""
        ids = array("I", self.packed)
        if sys.byteorder == "big":
            ids.byteswap()
        return ids

    @classmethod
    def pack(cls, ids: "list[int] | tuple[int, ...] | array[int]") -> "TokenIds":
        packed = array("I", ids)
        if sys.byteorder == "big":
            packed.byteswap()
        return cls(packed.tobytes())


@dataclass(frozen=True, slots=True)
class BlockHashes:
    """`tokenext.v1.BlockHashes`: one hash for each full block of the prompt, packed in order."""

    scheme: str
    block_size: int
    hashes: bytes


@dataclass(frozen=True, slots=True)
class TokenRecord:
    """`tokenext.v1.TokenRecord`; the .proto says what the fields promise. token_count is len(token_ids)."""

    model: str
    tokenizer_digest: str
    token_ids: TokenIds
    kind: Kind
    engine_exact: bool
    reason: str = ""
    block_hashes: BlockHashes | None = None


def encode(record: TokenRecord) -> dict[str, JsonValue]:
    """The record in proto3 JSON form: default values left out, as protobuf's own printers do."""
    fields = spent(record)
    if record.token_ids:
        fields["tokenIds"] = b64encode(record.token_ids.packed).decode("ascii")
    blocks = record.block_hashes
    if blocks is not None:
        fields["blockHashes"] = {
            "scheme": blocks.scheme,
            "blockSize": blocks.block_size,
            **({"hashes": b64encode(blocks.hashes).decode("ascii")} if blocks.hashes else {}),
        }
    return fields


def spent(record: TokenRecord) -> dict[str, JsonValue]:
    """What may stand in a record's place when its last reader has it: all but the ids and their hashes.

    Envoy repeats metadata on every message of a stream; this keeps the ids off those of the response.
    """
    fields: dict[str, JsonValue] = {
        "model": record.model,
        "tokenizerDigest": record.tokenizer_digest,
        "tokenCount": len(record.token_ids),
        "kind": record.kind.value,
        "engineExact": record.engine_exact,
        "reason": record.reason,
    }
    return {name: value for name, value in fields.items() if value}


def decode(value: object) -> TokenRecord:
    """Read a record as any proto3 JSON parser would: either spelling of a field, defaults where it is absent.

    Fields of later versions are passed over. Raises RecordError for whatever cannot be trusted whole.
    """
    if not isinstance(value, dict):
        raise RecordError(RecordFault.NOT_AN_OBJECT, "a record is an object")
    kind_name = _field(value, "kind", "kind", str, "KIND_UNSPECIFIED")
    try:
        kind = Kind(kind_name)
    except ValueError:
        raise RecordError(RecordFault.UNKNOWN_KIND, "kind is none this version knows") from None
    count = _field(value, "tokenCount", "token_count", float, 0.0)
    encoded = _field(value, "tokenIds", "token_ids", str, "")
    if count > MAX_ID_COUNT or len(encoded) > MAX_ID_COUNT * 6:
        raise RecordError(RecordFault.TOO_LARGE, f"more than {MAX_ID_COUNT} ids")
    if count and not encoded:
        raise RecordError(RecordFault.SPENT, "another reader took its ids out")
    packed = _from_base64(encoded, "tokenIds")
    if len(packed) != count * BYTES_PER_ID:
        raise RecordError(RecordFault.COUNT_MISMATCH, "tokenCount and tokenIds disagree")
    return TokenRecord(
        model=_field(value, "model", "model", str, ""),
        tokenizer_digest=_field(value, "tokenizerDigest", "tokenizer_digest", str, ""),
        token_ids=TokenIds(packed),
        kind=kind,
        engine_exact=_field(value, "engineExact", "engine_exact", bool, False),
        reason=_field(value, "reason", "reason", str, ""),
        block_hashes=_block_hashes(value.get("blockHashes", value.get("block_hashes"))),
    )


def _block_hashes(value: object) -> BlockHashes | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise RecordError(RecordFault.BAD_FIELD, "blockHashes is no object")
    encoded = _field(value, "hashes", "hashes", str, "")
    if len(encoded) > MAX_HASH_BYTES * 4 // 3 + 4:
        raise RecordError(RecordFault.TOO_LARGE, f"more than {MAX_HASH_BYTES} bytes of hashes")
    return BlockHashes(
        scheme=_field(value, "scheme", "scheme", str, ""),
        block_size=int(_field(value, "blockSize", "block_size", float, 0.0)),
        hashes=_from_base64(encoded, "hashes"),
    )


def _from_base64(encoded: str, name: str) -> bytes:
    try:
        # proto3 JSON readers take the URL-safe alphabet too, with or without padding.
        alphabet = b"-_" if "-" in encoded or "_" in encoded else None
        return b64decode(encoded + "=" * (-len(encoded) % 4), altchars=alphabet, validate=True)
    except (Base64Error, ValueError):
        raise RecordError(RecordFault.BAD_BASE64, f"{name} is not base64") from None


def _field(value: dict[object, object], camel: str, snake: str, expected: type[T], default: T) -> T:
    found = value.get(camel, value.get(snake))
    if found is None:
        return default
    if expected is float and type(found) is int:
        found = float(found)
    if type(found) is not expected:
        raise RecordError(RecordFault.BAD_FIELD, f"{camel} is no {expected.__name__}")
    return found
