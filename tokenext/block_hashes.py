"""Block hashes beside the ids, for pickers that only match prefixes: the engine's own, or none."""

import struct
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from extproc import dynamo_blocks, vllm_blocks
from extproc.token_metadata import BlockHashes, TokenIds

__all__ = ["BlockHasher", "DynamoHasher", "Scheme", "VllmHasher"]


class Scheme(StrEnum):
    """Whose hashes; the record says it in these words."""

    DYNAMO = "dynamo"
    VLLM_SHA256_CBOR = "vllm-sha256-cbor"


class BlockHasher(Protocol):
    def hashes(self, ids: TokenIds, *, cache_salt: str, lora: str) -> BlockHashes | None:
        """The hashes of a prompt's full blocks; None where the engine's cannot be told."""
        ...


@dataclass(frozen=True, slots=True)
class DynamoHasher:
    """Dynamo 1.6's sequence hashes (extproc/dynamo_blocks.py), each 8 bytes, little-endian."""

    block_size: int

    def hashes(self, ids: TokenIds, *, cache_salt: str, lora: str) -> BlockHashes | None:
        del cache_salt  # Dynamo hashes ids alone
        keys = dynamo_blocks.block_keys(ids.packed, self.block_size, lora_name=lora)
        return BlockHashes(Scheme.DYNAMO.value, self.block_size, struct.pack(f"<{len(keys)}Q", *keys))


@dataclass(frozen=True, slots=True)
class VllmHasher:
    """vLLM's, where it runs with sha256_cbor (extproc/vllm_blocks.py), each 32 bytes.

    None for a LoRA adapter: whether vLLM names it as the client does depends on how it was loaded.
    """

    block_size: int
    seed: str = vllm_blocks.DEFAULT_SEED

    def hashes(self, ids: TokenIds, *, cache_salt: str, lora: str) -> BlockHashes | None:
        if lora:
            return None
        found = vllm_blocks.block_hashes(ids.packed, self.block_size, seed=self.seed, cache_salt=cache_salt)
        return BlockHashes(Scheme.VLLM_SHA256_CBOR.value, self.block_size, b"".join(found))
