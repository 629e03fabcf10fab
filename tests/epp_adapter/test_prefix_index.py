"""What endpoints hold: block keys, the exact index (against a model, too), and the approximate one."""

import random

import pytest

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.approx_prefix import ApproximatePrefixes
from epp_adapter.routing.holders import HolderBits
from epp_adapter.routing.prefix import ExactPrefixes, FixedPrefixes, Overlap, by_address, by_dynamo_instance
from epp_adapter.routing.prefix_index import (
    Applied,
    Cleared,
    PrefixIndex,
    PrefixMatch,
    Removed,
    Stored,
    StoredBlock,
    Tier,
    WorkerRank,
)
from extproc.dynamo_blocks import block_keys, chained_key, tokens_hash_seed, tokens_hashes
from extproc.token_metadata import TokenIds
from tests.epp_adapter.fuzz_prefix_index import run_sequence

SIZE = 16
A, B = WorkerRank(1), WorkerRank(2)
ENDPOINTS = tuple(Endpoint(f"10.0.0.{number}:8000", number) for number in range(4))


def prompt(blocks: int, seed: int = 0, extra: int = 0) -> bytes:
    ids = random.Random(seed)
    return TokenIds.pack([ids.randrange(100_000) for _ in range(blocks * SIZE + extra)]).packed


def stored(
    owner: WorkerRank, packed: bytes, *, after: int = 0, tier: Tier = Tier.DEVICE, name: int = 0
) -> Stored:
    """The event of an engine that names blocks by their position in prompt `name`."""
    hashes = tokens_hashes(packed, SIZE)
    blocks = tuple(StoredBlock(name * 1000 + n, hashes[n]) for n in range(after, len(hashes)))
    return Stored(owner, name * 1000 + after - 1 if after else None, blocks, tier)


@pytest.fixture
def index():
    return PrefixIndex()


class TestBlockKeys:
    def test_a_block_that_is_not_full_has_no_key(self):
        assert len(block_keys(prompt(3, extra=15), SIZE)) == 3
        assert block_keys(prompt(0, extra=15), SIZE) == []

    def test_a_key_stands_for_all_tokens_before_it(self):
        one, other = prompt(3), prompt(1, seed=9) + prompt(3)[SIZE * 4 :]
        assert all(
            key != unlike for key, unlike in zip(block_keys(one, SIZE), block_keys(other, SIZE), strict=True)
        )

    def test_equal_prefixes_have_equal_keys(self):
        assert block_keys(prompt(3) + prompt(2, seed=1), SIZE)[:3] == block_keys(prompt(3), SIZE)

    def test_the_limit_bounds_the_blocks_that_are_hashed(self):
        assert block_keys(prompt(9), SIZE, limit=2) == block_keys(prompt(2), SIZE)[:2]

    def test_an_adapters_name_makes_other_keys(self):
        assert tokens_hash_seed("") == 1337
        assert block_keys(prompt(1), SIZE, lora_name="a") != block_keys(prompt(1), SIZE)

    def test_keys_are_those_of_the_published_hash(self):
        """Golden values: xxh3-64 with seed 1337 over 1..16 and 17..32 as little-endian u32 (Dynamo 1.6.1)."""
        hashes = tokens_hashes(TokenIds.pack(list(range(1, 33))).packed, SIZE)
        assert hashes == [16863443419780771464, 2287610619914608821]
        assert block_keys(TokenIds.pack(list(range(1, 33))).packed, SIZE) == [
            hashes[0],
            chained_key(hashes[0], hashes[1]),
        ]

    def test_dynamo_itself_agrees(self):
        dynamo = pytest.importorskip("dynamo.llm")
        ids = [random.Random(1).randrange(100_000) for _ in range(333)]
        packed = TokenIds.pack(ids).packed
        assert tokens_hashes(packed, SIZE) == dynamo.compute_block_hash_for_seq(ids, SIZE)
        with_adapter = dynamo.compute_block_hash_for_seq(ids, SIZE, lora_name="my-adapter")
        assert tokens_hashes(packed, SIZE, lora_name="my-adapter") == with_adapter


class TestExactIndex:
    def test_the_longest_stored_prefix_matches(self, index):
        assert index.apply(stored(A, prompt(5))) is Applied.STORED
        asked = prompt(3) + prompt(2, seed=7)
        assert index.matches(block_keys(asked, SIZE)) == {A: PrefixMatch(3, 3)}

    def test_blocks_that_follow_a_known_one_extend_it(self, index):
        index.apply(stored(A, prompt(2)))
        index.apply(stored(A, prompt(5), after=2))
        assert index.matches(block_keys(prompt(5), SIZE)) == {A: PrefixMatch(5, 5)}

    def test_blocks_after_an_unknown_one_are_left_out(self, index):
        assert index.apply(stored(A, prompt(5), after=2)) is Applied.ORPHANED
        assert (index.blocks, index.owners) == (0, ())

    def test_one_workers_ids_mean_nothing_for_another(self, index):
        index.apply(stored(A, prompt(2)))
        assert index.apply(stored(B, prompt(5), after=2)) is Applied.ORPHANED

    def test_a_match_ends_at_a_removed_block_and_returns_with_it(self, index):
        index.apply(stored(A, prompt(4)))
        index.apply(Removed(A, (1,)))
        assert index.matches(block_keys(prompt(4), SIZE)) == {A: PrefixMatch(1, 1)}
        index.apply(Stored(A, 0, (StoredBlock(1, tokens_hashes(prompt(4), SIZE)[1]),)))
        assert index.matches(block_keys(prompt(4), SIZE)) == {A: PrefixMatch(4, 4)}

    def test_removing_what_is_not_known_changes_nothing_and_says_so(self, index):
        assert index.apply(Removed(A, (1,))) is Applied.UNKNOWN_BLOCK
        index.apply(stored(A, prompt(2)))
        assert index.apply(Removed(A, (1, 77))) is Applied.UNKNOWN_BLOCK
        assert index.blocks == 1

    def test_clearing_empties_one_rank_in_all_tiers_and_no_other(self, index):
        other_rank = WorkerRank(1, dp_rank=1)
        index.apply(stored(A, prompt(2)))
        index.apply(stored(A, prompt(2), tier=Tier.DISK))
        index.apply(stored(other_rank, prompt(2)))
        assert index.apply(Cleared(A)) is Applied.CLEARED
        assert index.matches(block_keys(prompt(2), SIZE)) == {other_rank: PrefixMatch(2, 2)}
        assert index.blocks == 2

    def test_tiers_are_told_apart(self, index):
        index.apply(stored(A, prompt(4), tier=Tier.HOST_PINNED))
        index.apply(stored(A, prompt(2)))
        assert index.matches(block_keys(prompt(4), SIZE)) == {A: PrefixMatch(2, 4)}
        index.apply(Removed(A, (0, 1)))
        assert index.matches(block_keys(prompt(4), SIZE)) == {A: PrefixMatch(0, 4)}

    def test_a_full_index_leaves_blocks_out_and_counts_it(self):
        index = PrefixIndex(max_blocks=3)
        assert index.apply(stored(A, prompt(5))) is Applied.FULL
        assert index.matches(block_keys(prompt(5), SIZE)) == {A: PrefixMatch(3, 3)}
        assert index.apply(stored(B, prompt(1), name=1)) is Applied.FULL
        assert index.owners == (A,)
        index.apply(Removed(A, (2,)))
        assert index.apply(stored(B, prompt(1), name=1)) is Applied.STORED

    def test_a_workers_bit_is_given_to_the_next(self):
        bits: HolderBits[str] = HolderBits()
        assert [bits.bit(name) for name in "abc"] == [0, 1, 2]
        bits.release("b")
        assert (bits.bit("d"), len(bits), "b" in bits) == (1, 3, False)
        assert list(bits.holders(range(3))) == ["a", "d", "c"]

    @pytest.mark.parametrize("seed", range(0, 300, 50))
    def test_it_equals_the_model_on_random_events(self, seed):
        """10,000 sequences: python -m tests.epp_adapter.fuzz_prefix_index --sequences 10000."""
        for number in range(50):
            assert run_sequence(seed + number) > 0


class TestExactPrefixes:
    def test_an_endpoint_speaks_with_its_best_rank_and_the_lower_of_equals(self, index):
        index.apply(stored(WorkerRank(1, 3), prompt(2)))
        index.apply(stored(WorkerRank(1, 2), prompt(2)))
        index.apply(stored(WorkerRank(1, 0), prompt(1)))
        index.apply(stored(WorkerRank(99), prompt(4)))
        known = ExactPrefixes(index, by_dynamo_instance)
        assert known.overlaps(block_keys(prompt(4), SIZE), ENDPOINTS) == {
            ENDPOINTS[1].address: Overlap(2, 2, dp_rank=2)
        }

    def test_where_each_server_publishes_its_own_the_address_is_the_worker(self, index):
        index.apply(stored(WorkerRank(ENDPOINTS[2].address), prompt(2)))
        known = ExactPrefixes(index, by_address)
        assert known.overlaps(block_keys(prompt(2), SIZE), ENDPOINTS) == {
            ENDPOINTS[2].address: Overlap(2, 2, 0)
        }

    def test_the_fake_tells_what_it_was_told(self):
        fake = FixedPrefixes({ENDPOINTS[0].address: Overlap(9, 9)})
        assert fake.overlaps([1, 2], ENDPOINTS[:1]) == {ENDPOINTS[0].address: Overlap(2, 2)}
        assert fake.overlaps([1, 2], ENDPOINTS[1:]) == {}


class TestApproximatePrefixes:
    def test_a_prompt_is_expected_where_its_prefix_was_sent(self):
        known = ApproximatePrefixes()
        known.picked(ENDPOINTS[0], block_keys(prompt(3), SIZE))
        known.picked(ENDPOINTS[1], block_keys(prompt(3) + prompt(2, seed=4), SIZE))
        asked = block_keys(prompt(3) + prompt(1, seed=4) + prompt(1, seed=5), SIZE)
        assert known.overlaps(asked, ENDPOINTS) == {
            ENDPOINTS[0].address: Overlap(3, 3),
            ENDPOINTS[1].address: Overlap(4, 4),
        }

    def test_an_endpoint_forgets_the_least_recently_used_blocks_from_the_end_of_a_prompt(self):
        known = ApproximatePrefixes(blocks_per_endpoint=4)
        known.picked(ENDPOINTS[0], block_keys(prompt(3, seed=1), SIZE))
        known.picked(ENDPOINTS[0], block_keys(prompt(2, seed=2), SIZE))
        assert known.overlaps(block_keys(prompt(3, seed=1), SIZE), ()) == {
            ENDPOINTS[0].address: Overlap(2, 2)
        }
        assert known.blocks == 4

    def test_using_a_prefix_again_keeps_it(self):
        known = ApproximatePrefixes(blocks_per_endpoint=4)
        first, second, third = (block_keys(prompt(2, seed=seed), SIZE) for seed in (1, 2, 3))
        for keys in (first, second, first, third):
            known.picked(ENDPOINTS[0], keys)
        assert set(known.overlaps(first, ())) == {ENDPOINTS[0].address}
        assert known.overlaps(second, ()) == {}

    def test_it_takes_the_endpoints_own_number_of_blocks_where_that_is_known(self):
        tuned, fixed = ApproximatePrefixes(10), ApproximatePrefixes(10, auto_tune=False)
        for known in (tuned, fixed):
            known.picked(ENDPOINTS[0], block_keys(prompt(5), SIZE), num_blocks=2)
        assert (tuned.blocks, fixed.blocks) == (2, 5)

    def test_endpoints_are_bounded_and_their_blocks_go_with_them(self):
        known = ApproximatePrefixes(max_endpoints=2)
        keys = block_keys(prompt(2), SIZE)
        for endpoint in (ENDPOINTS[0], ENDPOINTS[1], ENDPOINTS[0], ENDPOINTS[2]):
            known.picked(endpoint, keys)
        assert set(known.overlaps(keys, ())) == {ENDPOINTS[0].address, ENDPOINTS[2].address}
        assert known.blocks == 4

    def test_a_prompt_longer_than_the_capacity_keeps_its_beginning(self):
        known = ApproximatePrefixes(blocks_per_endpoint=3)
        keys = block_keys(prompt(8), SIZE)
        known.picked(ENDPOINTS[0], keys)
        assert known.overlaps(keys, ()) == {ENDPOINTS[0].address: Overlap(3, 3)}
