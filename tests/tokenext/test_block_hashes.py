"""Block hashes beside the ids."""

import struct

import pytest

from extproc import dynamo_blocks, vllm_blocks
from extproc.token_metadata import TokenIds
from tokenext.block_hashes import DynamoHasher, VllmHasher

IDS = TokenIds.pack(list(range(1, 40)))


def test_dynamos_are_its_sequence_hashes_one_for_each_full_block():
    found = DynamoHasher(16).hashes(IDS, cache_salt="", lora="")
    assert (found.scheme, found.block_size) == ("dynamo", 16)
    assert list(struct.unpack("<2Q", found.hashes)) == dynamo_blocks.block_keys(IDS.packed, 16)


def test_dynamos_of_an_adapter_are_the_adapters_own():
    plain, adapted = (DynamoHasher(16).hashes(IDS, cache_salt="", lora=lora) for lora in ("", "poet"))
    assert plain.hashes != adapted.hashes


def test_vllms_are_moved_by_the_salt_as_in_the_engine():
    found = VllmHasher(16, seed="7").hashes(IDS, cache_salt="tenant", lora="")
    assert (found.scheme, found.block_size) == ("vllm-sha256-cbor", 16)
    assert found.hashes == b"".join(vllm_blocks.block_hashes(IDS.packed, 16, seed="7", cache_salt="tenant"))


def test_vllms_of_an_adapter_cannot_be_told():
    assert VllmHasher(16).hashes(IDS, cache_salt="", lora="poet") is None


@pytest.mark.parametrize("lora", [False, True])
def test_a_prompt_that_is_shorter_than_a_block_has_an_empty_list(lora):
    found = DynamoHasher(64).hashes(IDS, cache_salt="", lora="poet" if lora else "")
    assert found.hashes == b""
