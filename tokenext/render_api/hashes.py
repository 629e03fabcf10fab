"""Block hashes in the answers, for clients that ask for them by a header, which vLLM passes over."""

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
import orjson

from extproc.token_metadata import BlockHashes
from extproc.vllm_blocks import HASH_BYTES
from tokenext.block_hashes import Scheme

__all__ = ["HEADER", "KEY", "are_wanted", "with_hashes"]

HEADER: Final = "x-tokenext-block-hashes"
KEY: Final = "block_hashes"


def are_wanted(headers: Mapping[str, str]) -> bool:
    """Whether a request asks for them; anything but "true" does not. `headers` by lower-case names."""
    return headers.get(HEADER, "").strip().lower() == "true"


def with_hashes(document: bytes, blocks: BlockHashes | None) -> bytes:
    """A JSON object, which has keys already, with one more at its end; null where there are no hashes."""
    return b'%b,"%b":%b}' % (document[:-1], KEY.encode(), b"null" if blocks is None else _as_json(blocks))


def _as_json(blocks: BlockHashes) -> bytes:
    spelled = _SPELLED[Scheme(blocks.scheme)](blocks.hashes)
    return b'{"scheme":"%b","block_size":%d,"hashes":%b}' % (
        blocks.scheme.encode(),
        blocks.block_size,
        spelled,
    )


def _decimal(hashes: bytes) -> bytes:
    """As proto3 JSON spells 64 bits: many readers of JSON have no numbers above 2**53."""
    numbers = np.frombuffer(hashes, dtype="<u8").astype("=u8", copy=False)
    return _texts(orjson.dumps(numbers, option=orjson.OPT_SERIALIZE_NUMPY)[1:-1])


def _hexadecimal(hashes: bytes) -> bytes:
    """The last 16 digits of each are the number of vLLM's KV events."""
    return _texts(hashes.hex(",", HASH_BYTES).encode())


def _texts(separated: bytes) -> bytes:
    """A list of strings, from them with commas between: no Python runs for one of perhaps thousands."""
    return b'["%b"]' % separated.replace(b",", b'","') if separated else b"[]"


_SPELLED: Final[Mapping[Scheme, Callable[[bytes], bytes]]] = {
    Scheme.DYNAMO: _decimal,
    Scheme.VLLM_SHA256_CBOR: _hexadecimal,
}
