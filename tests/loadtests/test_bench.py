"""The benchmark's own parts: workloads that repeat, bounds that can be missed, a client that reads all."""

import json
import socket
import threading
from itertools import pairwise

import pytest

from loadtests.bench import page, plot
from loadtests.bench.dynamo_reading import measure_reading
from loadtests.bench.http import Connection
from loadtests.bench.processes_cost import cpu_seconds, resident_megabytes
from loadtests.bench.prose import Conversation, prose
from loadtests.bench.results import Ratio, Results
from loadtests.bench.stages import SIZES
from loadtests.bench.workload import KINDS, workload


def test_a_seed_gives_one_text_and_no_two_seeds_share_a_beginning():
    assert prose(1, 5_000) == prose(1, 5_000)
    assert len(prose(1, 5_000)) == 5_000
    assert len({prose(seed, 100)[:16] for seed in range(200)}) == 200


def test_each_turn_of_a_conversation_begins_with_the_one_before():
    talk = Conversation(1, 10_000)
    first, second = talk.turn(0), talk.turn(1)
    assert second[: len(first)] == first
    assert [message["role"] for message in second[-2:]] == ["assistant", "user"]
    again = Conversation(1, 10_000)
    assert [again.turn(0), again.turn(1)] == [first, second]


@pytest.mark.parametrize("kind", KINDS)
def test_a_workload_has_the_length_that_was_asked_for_all_the_way(kind):
    asks = workload("m", kind, 8_000, 12, chars_per_token=4.0)
    assert sum(ask.counts for ask in asks) == 12
    assert len({ask.body for ask in asks}) == len(asks)
    for ask in asks:
        text = "".join(message["content"] for message in json.loads(ask.body)["messages"])
        assert 0.9 * 32_000 < len(text) < 1.25 * 32_000


def test_every_turn_that_counts_goes_on_from_the_one_asked_before():
    asks = workload("m", "multi-turn", 2_000, 12, chars_per_token=4.0)
    assert [ask.counts for ask in asks[:8]] == [False, False, True, True, True, True, True, False]
    for before, ask in pairwise(asks):
        if ask.counts:
            messages = json.loads(ask.body)["messages"]
            assert messages[:-2] == json.loads(before.body)["messages"]


@pytest.mark.parametrize(
    ("value", "better", "holds"), [(1.0, "lower", True), (1.1, "lower", False), (0.9, "higher", False)]
)
def test_a_bound_is_held_or_missed(value, better, holds):
    assert Ratio(value, must=1.0, aim=0.5, better=better).holds is holds


def test_the_summary_names_what_is_missed_and_the_file_says_all(tmp_path):
    results = Results(quick=True, model="m")
    results.ratios["fast"] = Ratio(0.5, 1, 0.5, "lower")
    results.ratios["slow"] = Ratio(2.0, 1, 0.5, "lower")
    assert results.summary() == "bench: 1 of 2 bounds hold; missed: slow"
    results.write(tmp_path / "bench.json")
    document = json.loads((tmp_path / "bench.json").read_text())
    assert document["ratios"]["slow"] == {
        "value": 2.0, "must": 1, "aim": 0.5, "better": "lower", "unit": "x", "holds": False,
    }  # fmt: skip
    assert document["machine"]["cores"] >= 1


@pytest.mark.parametrize(
    ("response", "body"),
    [
        (b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello", b"hello"),
        (
            b"HTTP/1.1 503 No\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
            b"5\r\nhello\r\n0\r\n\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", b""),
    ],
)
def test_the_client_reads_a_response_to_its_end_however_it_is_cut(response, body):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            peer, _ = server.accept()
            with peer:
                peer.recv(65_536)
                for index in range(len(response)):
                    peer.sendall(response[index : index + 1])

        thread = threading.Thread(target=serve)
        thread.start()
        with Connection(f"http://127.0.0.1:{server.getsockname()[1]}") as connection:
            answer = connection.post("/x", b"{}")
        thread.join()
    assert answer.body == body
    assert answer.status in (200, 503)
    assert 0 < answer.first_seconds <= answer.seconds


def test_a_process_knows_what_it_burnt_and_holds():
    import os

    before = cpu_seconds([os.getpid()])
    sum(range(2_000_000))
    assert cpu_seconds([os.getpid()]) > before
    assert resident_megabytes(os.getpid()) > 5


CHAIN = {
    "p50_ms": 4.04,
    "cpu_ms_per_request": {"tokenext": 1.25, "epp-adapter": 1.5, "envoy": 1.0},
}
BOUND = {"value": 2230.4, "must": 300, "aim": 600, "better": "higher", "unit": "x", "holds": True}


def test_a_page_gets_the_tables_that_were_measured_and_keeps_all_else(tmp_path):
    written = tmp_path / "page.md"
    written.write_text(
        "# Costs\n\n<!-- bench: bounds -->\nold\n<!-- bench end -->\n\ntext\n\n"
        "<!-- bench: chain -->\nold\n<!-- bench end -->\n\n<!-- bench: stages -->\nkept\n<!-- bench end -->\n"
    )
    document = {
        "ratios": {"speed": BOUND},
        "measurements": {"chain": {"8k": {"empty": CHAIN, "ours": CHAIN}}},
    }
    for _ in range(2):  # a second run replaces what the first one wrote
        page.write(written, document)
    assert written.read_text() == (
        "# Costs\n\n<!-- bench: bounds -->\n\n"
        "| bound | value | must | aim |  |\n| --- | --- | --- | --- | --- |\n"
        "| speed | 2,230 | >= 300 | >= 600 | holds |\n\n<!-- bench end -->\n\ntext\n\n"
        "<!-- bench: chain -->\n\n"
        "| workload | empty | ours | tokenext CPU empty / ours | picker CPU empty / ours |\n"
        "| --- | --- | --- | --- | --- |\n| 8k | 4.0 | 4.0 | 1.2 / 1.2 | 1.5 / 1.5 |\n\n"
        "<!-- bench end -->\n\n<!-- bench: stages -->\nkept\n<!-- bench end -->\n"
    )


def test_what_dynamos_binding_takes_to_read_ids_is_measured_for_each_size():
    results = Results(quick=True, model="")
    measure_reading(results, progress=lambda _: None)
    table = results.measurements["dynamo_reading_us"]
    assert list(table) == list(SIZES)
    assert table["128k"] > table["1k"] > 0


def test_a_page_that_asks_for_an_unknown_table_is_an_error_that_names_it(tmp_path):
    written = tmp_path / "page.md"
    written.write_text("<!-- bench: boundz -->\n<!-- bench end -->\n")
    with pytest.raises(page.PageError, match="boundz"):
        page.write(written, {"ratios": {}, "measurements": {}})


def test_a_run_of_which_nothing_is_drawn_leaves_no_picture_of_another(tmp_path):
    picture = tmp_path / "bench.png"
    picture.write_bytes(b"another run's")
    plot.draw({"scaling": {}}, picture)
    assert not picture.exists()
