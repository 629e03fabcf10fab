"""vLLM's block hashes, held to what vLLM 0.32's own functions gave; make e2e-blocks asks an engine."""

import pytest

from extproc.token_metadata import TokenIds
from extproc.vllm_blocks import HASH_BYTES, block_hashes

# Ids around every width that CBOR has for a number.
IDS = [0, 23, 24, 255, 256, 65535, 65536, 151643, 1, 2, 3, 4, 5, 6, 7, 4294967295]
PACKED = TokenIds.pack(IDS).packed
# hash_block_tokens(sha256_cbor, ...) of vllm 0.32.0, blocks of 4.
PLAIN = [
    "dc7fbfd287fac7b6243222eb8a406c3a145df86542e11806ae74c52db0f7a8e2",
    "b0cc7356293ff635e256f7b0120d2b249755f0bc63f948804f3da592017522ac",
    "68e40f8adebd34d636029f00f1cb9ee09286b6790767c47d874575cf7edb5660",
    "f532f4445c263df36f654c0b440ae4f4080fbbe1fa1a026f70c1a3d2cd1f8ad5",
]
SALTED = [
    "c34db21db7d7a99199bc5c2ede08f17de9b4165adb1931c6b7cbe82b7fe53758",
    "f50a28ab0512bf7a53755a529ee904155226adbca82397c37aa1706a738012bc",
    "3c50bbf2a8f8aa21b5c53d82459d45953a69f344f4fdb1ff4ff72919e8a9f787",
    "c00327c377ce4aa63982ee536da83271662d7bc7a785db19146615bc92319618",
]


@pytest.mark.parametrize(("salt", "expected"), [("", PLAIN), ("tenant", SALTED)])
def test_hashes_are_vllms_own(salt, expected):
    assert [each.hex() for each in block_hashes(PACKED, 4, cache_salt=salt)] == expected


def test_only_full_blocks_have_a_hash_and_the_rest_changes_none():
    assert [each.hex() for each in block_hashes(PACKED[:-4], 4)] == PLAIN[:3]
    assert block_hashes(PACKED[:12], 4) == []


def test_another_seed_moves_every_hash():
    other = block_hashes(PACKED, 4, seed="7")
    assert {len(each) for each in other} == {HASH_BYTES}
    assert not {each.hex() for each in other} & set(PLAIN)
