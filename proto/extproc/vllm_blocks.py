"""vLLM's block hashes, as far as another process can compute them: `--prefix-caching-hash-algo sha256_cbor`.

A block's hash is sha-256 of the canonical CBOR of (the hash before it, its ids, extra keys); before the first
one stands the hash of a seed, which is PYTHONHASHSEED of the engine, or a constant (vLLM 0.32,
v1/core/kv_cache_utils.py: hash_block_tokens, init_none_hash, generate_block_hash_extra_keys). The default
algorithm hashes Python's pickle instead, which is no format to rely on.
"""

from hashlib import sha256
from typing import Final

import cbor2
import numpy as np

from extproc.token_metadata import BYTES_PER_ID

__all__ = ["DEFAULT_SEED", "HASH_BYTES", "block_hashes"]

DEFAULT_SEED: Final = "vllm-none-hash"
HASH_BYTES: Final = 32


def block_hashes(
    packed: bytes, block_size: int, *, seed: str = DEFAULT_SEED, cache_salt: str = ""
) -> list[bytes]:
    """The hash of each full block of `packed` (u32, little-endian), 32 bytes each.

    KV events have the last 8 bytes, big-endian, as a number, unless VLLM_KV_EVENTS_USE_INT_BLOCK_HASHES is 0.
    """
    step = block_size * BYTES_PER_ID
    ids = np.frombuffer(packed, dtype="<u4", count=len(packed) // step * block_size).tolist()
    extra = (("cache_salt", cache_salt),) if cache_salt else None
    parent = _digest(seed)
    hashes: list[bytes] = []
    for start in range(0, len(ids), block_size):
        parent = _digest((parent, tuple(ids[start : start + block_size]), extra))
        hashes.append(parent)
        extra = None  # the salt is in the first block, and so in all that follow
    return hashes


def _digest(value: object) -> bytes:
    return sha256(cbor2.dumps(value, canonical=True)).digest()
