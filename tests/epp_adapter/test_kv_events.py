"""KV events, from messages to the index: Dynamo's over NATS, vLLM's over ZMQ, and what can go wrong."""

import random
from array import array
from collections import Counter
from itertools import count

import msgpack
import pytest

from epp_adapter.kv_events import KvEventError, StreamOutcome, WorkerRoll
from epp_adapter.kv_events_dynamo import DynamoEventStream, NatsOptions, decode_message
from epp_adapter.kv_events_vllm import VllmEventStream
from epp_adapter.routing.prefix_index import (
    Applied,
    PrefixIndex,
    PrefixMatch,
    Stored,
    StoredBlock,
    WorkerRank,
)
from extproc.dynamo_blocks import block_keys, tokens_hashes
from extproc.token_metadata import TokenIds

SIZE = 4
WORKER = 2**64 - 3
OWNER = WorkerRank(WORKER)
ADDRESS = "127.0.0.1:8000"


def ids(blocks: int, seed: int = 0) -> list[int]:
    source = random.Random(seed)
    return [source.randrange(200_000) for _ in range(blocks * SIZE)]


def keys(token_ids: list[int], lora_name: str = "") -> list[int]:
    return block_keys(TokenIds.pack(token_ids).packed, SIZE, lora_name=lora_name)


class Seen(Counter):
    """An observer that counts."""

    def __call__(self, outcome, number: int) -> None:
        self[outcome] += number


@pytest.fixture
def seen():
    return Seen()


@pytest.fixture
def index():
    return PrefixIndex()


class DynamoWorker:
    """Publishes as Dynamo's mocker was seen to."""

    def __init__(self, publisher: int = 77, worker: int = WORKER, dp_rank: int = 0) -> None:
        self.publisher, self.worker, self.dp_rank = publisher, worker, dp_rank
        self.sequences, self.event_ids = count(), count(1)

    def message(self, *data, tier: str = "device") -> bytes:
        events = [
            {
                "worker_id": self.worker,
                "storage_tier": tier,
                "residency_domain": "worker",
                "event": {"event_id": next(self.event_ids), "data": each, "dp_rank": self.dp_rank},
            }
            for each in data
        ]
        return msgpack.packb(
            {
                "publisher_id": self.publisher,
                "sequence": next(self.sequences),
                "published_at": 1795463131787,
                "topic": "kv-events",
                "payload": msgpack.packb(events),
            }
        )

    def stored(self, token_ids: list[int], parent: int | None = None, skip: int = 0) -> dict:
        hashes = tokens_hashes(TokenIds.pack(token_ids).packed, SIZE)
        blocks = [
            {"block_hash": key, "tokens_hash": tokens_hash, "mm_extra_info": None}
            for key, tokens_hash in list(zip(keys(token_ids), hashes, strict=True))[skip:]
        ]
        return {"stored": {"parent_hash": parent, "start_position": None, "blocks": blocks}}


class TestDynamo:
    @pytest.fixture
    def stream(self, index, seen):
        return DynamoEventStream(index, seen)

    @pytest.fixture
    def worker(self):
        return DynamoWorker()

    def test_stored_removed_and_cleared_blocks_are_followed(self, stream, index, worker, seen):
        prompt = ids(5)
        stream.receive(worker.message(worker.stored(prompt[: 3 * SIZE])))
        stream.receive(worker.message(worker.stored(prompt, parent=keys(prompt)[2], skip=3)))
        assert index.matches(keys(prompt)) == {OWNER: PrefixMatch(5, 5)}
        stream.receive(worker.message({"removed": {"block_hashes": [keys(prompt)[4]]}}))
        assert index.matches(keys(prompt)) == {OWNER: PrefixMatch(4, 4)}
        stream.receive(worker.message("cleared"))
        assert index.matches(keys(prompt)) == {}
        assert seen == {Applied.STORED: 2, Applied.REMOVED: 1, Applied.CLEARED: 1}

    def test_several_events_of_one_message_are_applied_in_order(self, stream, index, worker):
        prompt = ids(2)
        stream.receive(
            worker.message(worker.stored(prompt), {"removed": {"block_hashes": [keys(prompt)[1]]}})
        )
        assert index.matches(keys(prompt)) == {OWNER: PrefixMatch(1, 1)}

    def test_tiers_and_ranks_are_kept_apart(self, stream, index):
        prompt = ids(2)
        for rank, tier in ((0, "device"), (1, "host_pinned")):
            worker = DynamoWorker(publisher=rank, dp_rank=rank)
            stream.receive(worker.message(worker.stored(prompt), tier=tier))
        assert index.matches(keys(prompt)) == {
            WorkerRank(WORKER, 0): PrefixMatch(2, 2),
            WorkerRank(WORKER, 1): PrefixMatch(0, 2),
        }

    def test_a_missing_message_costs_what_was_known_of_its_worker_and_of_no_other(
        self, stream, index, worker, seen
    ):
        other = DynamoWorker(publisher=78, worker=5)
        stream.receive(worker.message(worker.stored(ids(2))))
        stream.receive(other.message(other.stored(ids(2))))
        worker.message("cleared")  # lost
        stream.receive(worker.message(worker.stored(ids(2, seed=1))))
        assert index.matches(keys(ids(2))) == {WorkerRank(5): PrefixMatch(2, 2)}
        assert index.matches(keys(ids(2, seed=1))) == {OWNER: PrefixMatch(2, 2)}
        assert seen[StreamOutcome.GAP] == 1

    def test_joining_late_is_no_gap_and_takes_what_can_be_placed(self, stream, index, worker, seen):
        prompt = ids(3)
        worker.message(worker.stored(prompt[:SIZE]))  # before we came
        stream.receive(worker.message(worker.stored(prompt, parent=keys(prompt)[0], skip=1)))
        stream.receive(worker.message(worker.stored(ids(1, seed=2))))
        assert index.blocks == 1
        assert seen == {Applied.ORPHANED: 1, Applied.STORED: 1}

    def test_a_worker_that_restarts_with_its_old_id_begins_empty(self, stream, index, worker, seen):
        stream.receive(worker.message(worker.stored(ids(2))))
        again = DynamoWorker(publisher=99)
        stream.receive(again.message(again.stored(ids(1, seed=5))))
        assert index.matches(keys(ids(2))) == {}
        assert (index.blocks, seen[StreamOutcome.RESTARTED]) == (1, 1)

    @pytest.mark.parametrize(
        "message",
        [
            b"",
            b"\xc1",
            msgpack.packb([1, 2]),
            msgpack.packb({"publisher_id": 1, "sequence": 0, "payload": b"\xff"}),
            msgpack.packb({"publisher_id": 1, "sequence": 0, "payload": msgpack.packb([{"worker_id": "a"}])}),
            DynamoWorker().message("renamed"),
            DynamoWorker().message({"moved": {}}),
            DynamoWorker().message({"stored": {"blocks": [{"block_hash": 1}]}}),
            DynamoWorker().message("cleared", tier="tape"),
        ],
    )
    def test_what_cannot_be_read_is_counted_and_then_missing(self, stream, index, seen, message):
        with pytest.raises(KvEventError):
            decode_message(message)
        stream.receive(message)
        assert (seen, index.blocks) == ({StreamOutcome.MALFORMED: 1}, 0)

    def test_an_unreadable_message_is_a_gap_for_the_next_of_its_publisher(self, stream, index, worker, seen):
        stream.receive(worker.message(worker.stored(ids(2))))
        stream.receive(worker.message("renamed"))
        stream.receive(worker.message(worker.stored(ids(1, seed=3))))
        assert (index.blocks, seen[StreamOutcome.GAP]) == (1, 1)

    def test_publishers_are_bounded(self, index, seen, monkeypatch):
        monkeypatch.setattr("epp_adapter.kv_events_dynamo._MAX_PUBLISHERS", 2)
        stream = DynamoEventStream(index, seen)
        for number in range(5):
            worker = DynamoWorker(publisher=number, worker=number)
            stream.receive(worker.message(worker.stored(ids(1))))
        assert {owner.worker for owner in index.owners} == {3, 4}

    def test_the_subject_is_the_endpoints(self):
        expected = "namespace.dyn.component.backend.endpoint.generate.kv-events"
        assert NatsOptions("nats://x", "dyn.backend.generate").subject == expected
        assert NatsOptions("nats://x", "dyn://dyn.backend.generate").subject == expected


def test_a_worker_that_is_no_endpoint_twice_in_a_row_is_forgotten(index, seen):
    (tokens_hash,) = tokens_hashes(TokenIds.pack(ids(1)).packed, SIZE)
    for worker in (1, 2):
        index.apply(Stored(WorkerRank(worker), None, (StoredBlock(1, tokens_hash),)))
    roll = WorkerRoll(index, seen)
    roll.call({1})
    assert len(index.owners) == 2, "it may only be new"
    roll.call({1, 2})
    roll.call({1})
    assert len(index.owners) == 2, "it was there in between"
    roll.call({1})
    assert (index.owners, seen[StreamOutcome.ABSENT]) == ((WorkerRank(1),), 1)


MAPS, ARRAYS = "maps", "arrays"


class VllmServer:
    """Publishes as vLLM does: block ids are its own, 64 bit numbers or 32 bytes."""

    def __init__(self, form: str = MAPS, dp_rank: int | None = 0) -> None:
        self.form, self.dp_rank = form, dp_rank

    @staticmethod
    def block_id(position: int, name: int = 0) -> int | bytes:
        return 10_000 * name + position if name else position.to_bytes(32, "big")

    def stored(self, token_ids: list[int], after: int = 0, name: int = 0, **fields) -> dict:
        return {
            "type": "BlockStored",
            "block_hashes": [self.block_id(n, name) for n in range(after, len(token_ids) // SIZE)],
            "parent_block_hash": self.block_id(after - 1, name) if after else None,
            "token_ids": token_ids[after * SIZE :],
            "block_size": SIZE,
            "lora_id": None,
            "medium": "GPU",
            "lora_name": None,
            **fields,
        }

    def removed(self, *positions: int, name: int = 0, **fields) -> dict:
        blocks = [self.block_id(position, name) for position in positions]
        return {"type": "BlockRemoved", "block_hashes": blocks, "medium": "GPU", **fields}

    def payload(self, *events: dict) -> bytes:
        if self.form == MAPS:
            return msgpack.packb({"ts": 1.5, "events": list(events), "data_parallel_rank": self.dp_rank})
        return msgpack.packb([1.5, [list(event.values()) for event in events], self.dp_rank])


CLEARED = {"type": "AllBlocksCleared"}


@pytest.mark.parametrize("form", [MAPS, ARRAYS])
class TestVllm:
    @pytest.fixture
    def server(self, form):
        return VllmServer(form)

    @pytest.fixture
    def stream(self, index, seen):
        return VllmEventStream(ADDRESS, index, block_size=SIZE, observe=seen)

    def match(self, index, token_ids, lora_name="") -> int:
        found = index.matches(keys(token_ids, lora_name))
        return found[WorkerRank(ADDRESS)].blocks if found else 0

    def test_stored_removed_and_cleared_blocks_are_followed(self, stream, index, server, seen):
        prompt = ids(5)
        stream.receive(0, server.payload(server.stored(prompt[: 3 * SIZE])))
        stream.receive(1, server.payload(server.stored(prompt, after=3), server.removed(4)))
        assert self.match(index, prompt) == 4
        stream.receive(2, server.payload(CLEARED))
        assert index.blocks == 0
        assert seen == {Applied.STORED: 2, Applied.REMOVED: 1, Applied.CLEARED: 1}

    def test_a_block_is_gone_with_its_last_copy(self, stream, index, server):
        prompt = ids(2)
        for sequence in range(3):
            stream.receive(sequence, server.payload(server.stored(prompt)))
        lengths = []
        for sequence in range(3, 6):
            stream.receive(sequence, server.payload(server.removed(1)))
            lengths.append(self.match(index, prompt))
        assert lengths == [2, 2, 1]
        stream.receive(6, server.payload(server.stored(prompt), CLEARED, server.stored(prompt)))
        stream.receive(7, server.payload(server.removed(0)))
        assert self.match(index, prompt) == 0

    def test_tiers_are_read_from_the_medium(self, stream, index, server):
        prompt = ids(2)
        stream.receive(0, server.payload(server.stored(prompt, medium="CPU")))
        stream.receive(1, server.payload(server.stored(prompt[:SIZE], medium=None)))
        assert index.matches(keys(prompt)) == {WorkerRank(ADDRESS): PrefixMatch(1, 2)}

    def test_an_adapters_blocks_match_prompts_for_that_adapter_only(self, stream, index, server):
        prompt = ids(2)
        stream.receive(0, server.payload(server.stored(prompt, lora_id=1, lora_name="tuned")))
        assert (self.match(index, prompt), self.match(index, prompt, "tuned")) == (0, 2)

    def test_an_adapter_without_a_name_is_ignored(self, stream, index, server, seen):
        stream.receive(0, server.payload(server.stored(ids(2), lora_id=1)))
        assert (index.blocks, seen) == (0, {StreamOutcome.IGNORED: 1})

    def test_blocks_that_tokens_alone_do_not_identify_are_left_out_with_all_after_them(
        self, stream, index, server, seen
    ):
        prompt = ids(4)
        extra = [None, None, ["an image's hash"], None]
        stream.receive(0, server.payload(server.stored(prompt, extra_keys=extra)))
        stream.receive(1, server.payload(server.stored(ids(1, seed=8), name=3, extra_keys=[["salt"]])))
        assert (self.match(index, prompt), index.blocks) == (2, 2)
        assert seen == {Applied.STORED: 1, StreamOutcome.IGNORED: 2}

    def test_an_adapters_own_name_among_the_extra_keys_is_no_extra(self, stream, index, server):
        stream.receive(0, server.payload(server.stored(ids(1), lora_name="tuned", extra_keys=[["tuned"]])))
        assert self.match(index, ids(1), "tuned") == 1

    def test_groups_that_do_not_tell_prefixes_are_ignored(self, stream, index, server):
        prompt = ids(2)
        window = {"extra_keys": None, "group_idx": 0, "kv_cache_spec_kind": "sliding_window"}
        full = {"extra_keys": None, "group_idx": 1, "kv_cache_spec_kind": "full_attention"}
        stream.receive(0, server.payload(server.stored(prompt, **window), server.stored(prompt, **full)))
        assert (self.match(index, prompt), index.blocks) == (2, 2)
        stream.receive(1, server.payload(server.removed(0, 1, group_idx=0)))
        assert self.match(index, prompt) == 2
        stream.receive(2, server.payload(server.removed(0, 1, group_idx=1)))
        assert index.blocks == 0

    def test_blocks_on_another_machine_are_ignored(self, stream, index, server, seen):
        far = {"extra_keys": None, "group_idx": 0, "kv_cache_spec_kind": None}
        far |= {"kv_cache_spec_sliding_window": None, "locality": "REMOTE"}
        stream.receive(0, server.payload(server.stored(ids(2), **far)))
        assert (index.blocks, seen) == (0, {StreamOutcome.IGNORED: 1})

    def test_another_block_size_is_ignored_and_told_once(self, stream, index, server, seen, caplog):
        for sequence in range(3):
            event = server.stored(ids(4), block_size=2 * SIZE)
            event["block_hashes"] = event["block_hashes"][:2]
            stream.receive(sequence, server.payload(event))
        assert (index.blocks, seen) == (0, {StreamOutcome.IGNORED: 3})
        assert caplog.text.count("block_size is 4") == 1

    def test_a_rank_in_the_batch_names_its_own_cache(self, stream, index, form):
        stream.receive(0, VllmServer(form, dp_rank=3).payload(VllmServer(form).stored(ids(1))))
        assert index.owners == (WorkerRank(ADDRESS, 3),)

    def test_a_gap_without_replay_costs_what_was_known(self, stream, index, server, seen):
        stream.receive(0, server.payload(server.stored(ids(2))))
        assert stream.receive(5, server.payload(server.stored(ids(1, seed=1), name=1))) is None
        assert (self.match(index, ids(2)), index.blocks, seen[StreamOutcome.GAP]) == (0, 1, 1)

    def test_a_restart_begins_anew(self, stream, index, server, seen):
        for sequence in range(3):
            stream.receive(sequence, server.payload(server.stored(ids(1, seed=sequence), name=sequence + 1)))
        stream.receive(0, server.payload(server.stored(ids(2, seed=7), name=9)))
        assert (index.blocks, seen[StreamOutcome.RESTARTED]) == (2, 1)

    @pytest.mark.parametrize(
        "change",
        [
            {"token_ids": [1, 2, 3]},
            {"token_ids": [-1] * 8},
            {"token_ids": [2**32] * 8},
            {"token_ids": [[1, 2]] * 8},
            {"block_hashes": "no"},
            {"type": "BlockMoved"},
        ],
    )
    def test_an_event_that_cannot_be_read_costs_what_was_known(self, stream, index, server, seen, change):
        stream.receive(0, server.payload(server.stored(ids(1, seed=4), name=2)))
        stream.receive(1, server.payload(server.stored(ids(2)) | change))
        assert (index.blocks, seen[StreamOutcome.MALFORMED]) == (0, 1)
        stream.receive(2, server.payload(server.stored(ids(1))))
        assert index.blocks == 1, "it goes on with what comes next"


@pytest.mark.parametrize(
    "payload", [b"", b"\xc1", msgpack.packb(7), msgpack.packb({"ts": 1}), msgpack.packb([1, [3]])]
)
def test_a_batch_that_cannot_be_read_is_counted(index, seen, payload):
    VllmEventStream(ADDRESS, index, block_size=SIZE, observe=seen).receive(0, payload)
    assert seen == {StreamOutcome.MALFORMED: 1}


class TestReplay:
    @pytest.fixture
    def server(self):
        return VllmServer()

    @pytest.fixture
    def stream(self, index, seen):
        return VllmEventStream(ADDRESS, index, block_size=SIZE, observe=seen, can_replay=True)

    @pytest.fixture
    def payloads(self, server):
        return [server.payload(server.stored(ids(1, seed=n), name=n + 1)) for n in range(8)]

    def test_the_first_message_asks_for_all_that_was_before_it(self, stream, index, payloads, seen):
        assert stream.receive(3, payloads[3]) == 0
        for sequence in range(4):
            stream.replay(sequence, payloads[sequence])
        stream.resume(3, payloads[3])
        assert (index.blocks, seen[StreamOutcome.GAP]) == (4, 0)

    def test_a_gap_that_is_replayed_costs_nothing(self, stream, index, payloads, seen):
        stream.receive(0, payloads[0])
        assert stream.receive(4, payloads[4]) == 1
        for sequence in (1, 2, 3):
            stream.replay(sequence, payloads[sequence])
        stream.resume(4, payloads[4])
        assert (index.blocks, seen[StreamOutcome.GAP], seen[StreamOutcome.REPLAYED]) == (5, 0, 3)

    def test_live_messages_that_were_replayed_too_are_passed_over(self, stream, index, payloads, seen):
        stream.receive(0, payloads[0])
        assert stream.receive(2, payloads[2]) == 1
        for sequence in range(1, 5):
            stream.replay(sequence, payloads[sequence])
        stream.resume(2, payloads[2])
        assert [stream.receive(sequence, payloads[sequence]) for sequence in (3, 4, 5)] == [None] * 3
        assert (index.blocks, seen[StreamOutcome.DUPLICATE], seen[StreamOutcome.RESTARTED]) == (6, 2, 0)

    def test_a_replay_that_begins_too_late_is_a_gap(self, stream, index, payloads, seen):
        stream.receive(0, payloads[0])
        assert stream.receive(6, payloads[6]) == 1
        for sequence in (4, 5, 6):
            stream.replay(sequence, payloads[sequence])
        stream.resume(6, payloads[6])
        assert (index.blocks, seen[StreamOutcome.GAP]) == (3, 1)

    def test_a_server_that_does_not_replay_leaves_a_gap(self, stream, index, payloads, seen):
        stream.receive(0, payloads[0])
        assert stream.receive(6, payloads[6]) == 1
        stream.resume(6, payloads[6])
        assert (index.blocks, seen[StreamOutcome.GAP]) == (1, 1)


def test_token_ids_are_hashed_as_the_record_carries_them():
    """The same four bytes per id on both sides, or nothing would ever match."""
    assert TokenIds.pack(array("I", [1, 2**32 - 1])).packed == b"\x01\0\0\0\xff\xff\xff\xff"
