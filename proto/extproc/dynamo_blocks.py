"""Block keys: one 64 bit number per block of a prompt that stands for all tokens up to the block's end.

The hashes are Dynamo 1.6's (lib/kv-router, compute_block_hash_for_seq), so that its KV events need no tokens:
a block's tokens hash is xxh3-64 of its ids as little-endian u32, and a key is xxh3-64 of the parent's key and
the tokens hash, both as little-endian u64. A LoRA adapter's name moves the seed of the tokens hash. Two
different prefixes share a key with a chance of 2**-64 per pair, as in Dynamo itself.
"""

import struct
from itertools import repeat
from typing import Final

import numpy as np
from xxhash import xxh3_64_intdigest

from extproc.token_metadata import BYTES_PER_ID

__all__ = ["block_keys", "chained_key", "tokens_hash_seed", "tokens_hashes"]

SEED: Final = 1337
_U64: Final = 2**64
_pack_pair: Final = struct.Struct("<QQ").pack


def tokens_hash_seed(lora_name: str = "") -> int:
    """The seed of the tokens hash; "" is the base model."""
    return (SEED + xxh3_64_intdigest(lora_name.encode())) % _U64 if lora_name else SEED


def tokens_hashes(
    packed: bytes, block_size: int, *, lora_name: str = "", limit: int | None = None
) -> list[int]:
    """The tokens hash of each full block of `packed` (u32, little-endian), of the first `limit` blocks."""
    seed = tokens_hash_seed(lora_name)
    step = block_size * BYTES_PER_ID
    blocks = len(packed) // step if limit is None else min(limit, len(packed) // step)
    # Cut by numpy and hashed by map: no line of Python runs for a block, and a prompt has thousands.
    cut = np.frombuffer(packed, dtype=f"V{step}", count=blocks).tolist() if blocks else []
    return list(map(xxh3_64_intdigest, cut, repeat(seed)))


def chained_key(parent: int | None, tokens_hash: int) -> int:
    """The key of the block with this tokens hash after `parent`; None: it is a prompt's first block."""
    return tokens_hash if parent is None else xxh3_64_intdigest(_pack_pair(parent, tokens_hash), SEED)


def block_keys(packed: bytes, block_size: int, *, lora_name: str = "", limit: int | None = None) -> list[int]:
    """The key of each full block, in order. A last block that is not full has none: no engine shares it."""
    hashes = tokens_hashes(packed, block_size, lora_name=lora_name, limit=limit)
    keys = hashes[:1]
    if keys:
        key = keys[0]
        for tokens_hash in hashes[1:]:
            # `chained_key`, written out: to call it for every block would take half as long again.
            keys.append(key := xxh3_64_intdigest(_pack_pair(key, tokens_hash), SEED))
    return keys
