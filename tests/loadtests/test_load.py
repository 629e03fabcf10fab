"""Load: the same for the same seed, streams timed piece by piece, and nothing begun that cannot go well."""

import itertools
import json
import random
import statistics
import subprocess
import sys

import pytest

from loadtests.load import corpus, lengths, results, samples
from loadtests.load.__main__ import main
from loadtests.load.corpus import Corpus, CorpusError
from loadtests.load.locust_run import LOCUSTFILE, environment
from loadtests.load.samples import Sample
from loadtests.load.stream_times import StreamError, StreamTimes
from loadtests.load.target import Target, TargetError, check
from loadtests.load.workloads import WORKLOADS, Shape, text_of
from loadtests.report.__main__ import main as report_main
from loadtests.stack import services
from loadtests.stack.probes import free_ports
from loadtests.stack.processes import Supervisor

OWN = corpus.own()
SHAPE = Shape(corpus=OWN, lengths={name: lengths.named("uniform:50:900") for name in lengths.LENGTHS})


def session(name, seed="1", shape=SHAPE):
    return list(WORKLOADS[name](shape, random.Random(seed)))


class TestCorpus:
    def test_the_own_one_has_users_who_are_answered(self):
        assert len(OWN.talks) >= 5
        assert all(len(talk) > 1 and all(talk) for talk in OWN.talks)

    def test_sharegpt_files_are_read_and_what_is_no_dialogue_is_left_out(self, tmp_path):
        def record(*said):
            return {"id": "x", "conversations": [{"from": who, "value": text} for who, text in said]}

        path = tmp_path / "talks.json"
        path.write_text(
            json.dumps(
                [
                    record(("system", "be kind"), ("human", "a"), ("gpt", "b"), ("user", "c")),
                    record(("gpt", "it begins")),
                    record(("human", "alone")),
                    record(("human", "a"), ("human", "again"), ("gpt", "b")),
                ]
            )
        )
        assert corpus.load(path) == Corpus("talks", (("a", "b", "c"),))

    @pytest.mark.parametrize(
        ("text", "says"),
        [
            ("{", "is no JSON"),
            ("{}", "must be a list"),
            ("[]", "has no conversation"),
            ('[{"conversations": []}, 7]', "record 1: has no list"),
            ('[{"conversations": [{"from": "human", "value": 1}]}]', "record 0: turn 0"),
        ],
    )
    def test_what_is_malformed_is_named_by_file_and_place(self, tmp_path, text, says):
        path = tmp_path / "bad.json"
        path.write_text(text)
        with pytest.raises(CorpusError, match=f"bad.json: .*{says}|bad.json: {says}"):
            corpus.load(path)


class TestLengths:
    @pytest.mark.parametrize(("name", "middle"), [("question", 140), ("reply", 700), ("document", 36_000)])
    def test_half_of_the_texts_are_shorter_than_the_median(self, name, middle):
        draw = random.Random(1)
        drawn = [lengths.named(name)(draw) for _ in range(4_000)]
        assert statistics.median(drawn) == pytest.approx(middle, rel=0.1)
        assert max(drawn) > 3 * middle

    def test_fixed_and_uniform_ones_keep_to_their_numbers(self):
        draw = random.Random(1)
        assert {lengths.named("fixed:7")(draw) for _ in range(50)} == {7}
        assert {lengths.named("uniform:2:4")(draw) for _ in range(200)} == {2, 3, 4}

    @pytest.mark.parametrize("name", ["nothing", "fixed", "fixed:0", "uniform:4:2", "fixed:x", "reply:1"])
    def test_unknown_ones_are_refused_with_those_that_there_are(self, name):
        with pytest.raises(lengths.LengthsError, match=r"question, reply.*fixed:N"):
            lengths.named(name)


class TestWorkloads:
    @pytest.mark.parametrize("name", WORKLOADS)
    def test_a_seed_gives_one_session_and_another_seed_another(self, name):
        assert session(name) == session(name)
        assert session(name) != session(name, seed="2")

    @pytest.mark.parametrize("name", ["chat", "shared", "agent", "documents"])
    def test_each_request_begins_with_all_of_the_one_before(self, name):
        asked = [ask.body["messages"] for ask in session(name)]
        assert len(asked) >= 2
        for before, after in itertools.pairwise(asked):
            assert after[: len(before)] == before
            assert len(after) > len(before)

    def test_completions_go_on_from_their_own_prompt(self):
        prompts = [ask.body["prompt"] for ask in session("completions")]
        assert all(after.startswith(before) for before, after in itertools.pairwise(prompts))

    def test_shared_sessions_share_few_system_prompts_and_chats_share_none(self):
        def systems(name):
            return [session(name, seed=str(each))[0].body["messages"][0]["content"] for each in range(60)]

        assert 2 <= len(set(systems("shared"))) <= SHAPE.groups
        assert len(set(systems("chat"))) == 60

    def test_agents_bring_tools_their_calls_and_what_these_said(self):
        last = session("agent")[-1].body
        assert [tool["type"] for tool in last["tools"]] == ["function"] * 3
        assert [message["role"] for message in last["messages"][2:4]] == ["assistant", "tool"]
        assert json.loads(last["messages"][2]["tool_calls"][0]["function"]["arguments"])

    def test_mixed_visits_are_of_every_kind(self):
        names = {session("mixed", seed=str(each))[0].name for each in range(100)}
        assert names == set(WORKLOADS) - {"mixed"}

    def test_shares_and_pauses_are_those_that_were_asked_for(self):
        shape = Shape(corpus=OWN, stream_share=0.5, abort_share=0.5, think_seconds=2.0, turns=(4, 4))
        asks = [ask for each in range(200) for ask in session("chat", seed=str(each), shape=shape)]
        streamed = [ask for ask in asks if ask.body.get("stream")]
        assert len(streamed) / len(asks) == pytest.approx(0.5, abs=0.06)
        aborted = [ask for ask in streamed if ask.abort_after is not None]
        assert len(aborted) / len(streamed) == pytest.approx(0.5, abs=0.08)
        assert statistics.fmean(ask.think_seconds for ask in asks) == pytest.approx(2.0, rel=0.15)
        assert all(ask.abort_after is None for ask in asks if ask not in streamed)

    def test_texts_have_their_length_and_begin_like_no_other(self):
        draw = random.Random(1)
        texts = [text_of(SHAPE, "reply", draw) for _ in range(100)]
        assert all(50 <= len(text) <= 900 for text in texts)
        assert len({text[:8] for text in texts}) == 100


def event(**document):
    return f"data: {json.dumps(document)}\n\n".encode()


def piece(text):
    return event(choices=[{"delta": {"content": text}}])


class TestStreamTimes:
    def test_the_first_piece_of_text_counts_and_not_the_role_before_it(self):
        times = StreamTimes()
        times.feed(event(choices=[{"delta": {"role": "assistant", "content": ""}}]), 0.1)
        times.feed(piece("a"), 0.25)
        times.feed(piece("b"), 0.5)
        times.feed(event(choices=[{"text": "c"}]), 1.0)
        times.feed(event(choices=[], usage={"prompt_tokens": 5, "completion_tokens": 3}), 1.0)
        times.feed(b"data: [DONE]\n\n", 1.1)
        times.end()
        assert times.first == 0.25
        assert times.gaps == [0.25, 0.5]
        assert times.usage is not None
        assert times.usage.prompt_tokens == 5

    def test_borders_of_chunks_may_fall_anywhere(self):
        stream = piece("ä") + piece("b") + b"data: [DONE]\n\n"
        for border in range(len(stream)):
            times = StreamTimes()
            times.feed(stream[:border], 1.0)
            times.feed(stream[border:], 2.0)
            times.end()
            assert len(times.gaps) == 1

    def test_calls_of_tools_are_pieces_too(self):
        times = StreamTimes()
        times.feed(event(choices=[{"delta": {"tool_calls": [{"index": 0}]}}]), 0.5)
        assert times.first == 0.5

    @pytest.mark.parametrize(
        ("stream", "says"),
        [(b"data: {\n\n", "no JSON"), (event(error={"message": "secret"}), "^an error in the stream$")],
    )
    def test_what_is_no_reply_is_a_failure_in_words_of_ours(self, stream, says):
        with pytest.raises(StreamError, match=says):
            StreamTimes().feed(stream, 0.1)

    def test_a_stream_that_breaks_off_is_a_failure(self):
        times = StreamTimes()
        times.feed(piece("a"), 0.1)
        with pytest.raises(StreamError, match="broke off"):
            times.end()


SAMPLES = [
    Sample(at=0.5, name="chat", seconds=0.5, body_bytes=900, first=0.02, gaps_us=(4_000, 6_000)),
    Sample(at=0.7, name="chat", seconds=0.7, body_bytes=900, first=0.04, gaps_us=(5_000,), left=True),
    Sample(at=0.9, name="chat", seconds=9.0, body_bytes=900, first=3.0, failure="the stream broke off"),
    Sample(at=1.1, name="completions", seconds=0.1, body_bytes=900),
]


class TestResults:
    def test_a_percentile_is_a_value_that_was_seen(self):
        assert [results.percentile(range(1, 101), percent) for percent in (1, 50, 95, 100)] == [
            1,
            50,
            95,
            100,
        ]
        assert results.percentile([7.0], 99) == 7.0
        assert results.percentile([], 50) is None

    def test_what_failed_is_counted_and_not_timed_and_who_left_has_no_end(self):
        report = results.of(SAMPLES, {}, seconds=2.0)
        found = {(each.name, each.kind): each for each in report.series}
        end, first, gap = (found["chat", kind] for kind in ("end", "ttft", "itl"))
        assert (end.count, end.failed, dict(end.ms)) == (3, 1, {50: 500.0, 95: 500.0, 99: 500.0})
        assert (first.count, dict(first.ms)) == (2, {50: 20.0, 95: 40.0, 99: 40.0})
        assert (gap.count, gap.ms[50]) == (3, 5.0)
        assert ("completions", "ttft") not in found

    def test_failures_are_shown_and_make_it_no_clean_run(self):
        assert results.of(SAMPLES[:2], {}, seconds=2.0).clean
        report = results.of(SAMPLES, {}, seconds=2.0)
        assert not report.clean
        assert report.failures == {"chat: the stream broke off": 1}
        assert report.summary() == "load: 4 requests, 1 failed, 2.0/s, first token p50 20 ms"

    def test_a_run_without_a_request_is_not_clean(self):
        assert not results.of([], {}, seconds=2.0).clean

    def test_the_file_has_what_is_needed_to_repeat_the_run(self, tmp_path):
        results.of(SAMPLES, {"seed": 5}, seconds=2.0).write(tmp_path / "results.json")
        document = json.loads((tmp_path / "results.json").read_text())
        assert document["parameters"] == {"seed": 5}
        assert document["machine"]["cores"] >= 1
        assert document["series"][1]["ms"]["95"] == 40.0

    def test_samples_are_read_as_they_were_written(self, tmp_path):
        path = tmp_path / "samples.jsonl"
        path.write_bytes(b"".join(samples.write_line(sample) for sample in SAMPLES))
        assert list(samples.read(path)) == SAMPLES

    def test_a_broken_line_of_samples_is_named(self, tmp_path):
        path = tmp_path / "samples.jsonl"
        path.write_bytes(samples.write_line(SAMPLES[0]) + b'{"at": "noon"}\n')
        with pytest.raises(samples.SamplesError, match=r"samples\.jsonl: line 2"):
            list(samples.read(path))


class TestBadInput:
    def test_nobody_there_is_one_line_and_status_2(self, tmp_path, capsys):
        (port,) = free_ports(1)
        arguments = ["--host", f"http://127.0.0.1:{port}", "--model", "m", "--out", str(tmp_path)]
        assert main(arguments) == 2
        assert f"load: http://127.0.0.1:{port} cannot be reached" in capsys.readouterr().err

    def test_a_malformed_corpus_is_one_line_and_status_2_before_anything_is_started(self, tmp_path, capsys):
        path = tmp_path / "bad.json"
        path.write_text("[7]")
        assert main(["--corpus", str(path), "--out", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err == f"load: {path}: record 0: has no list `conversations`\n"
        assert not (tmp_path / "out").exists()

    def test_a_malformed_trace_is_one_line_and_status_2_before_anything_is_started(self, tmp_path, capsys):
        path = tmp_path / "bad.jsonl"
        path.write_text('{"timestamp": 0, "input_length": 600, "output_length": 1, "hash_ids": [1]}')
        assert main(["--trace", str(path), "--out", str(tmp_path / "out")]) == 2
        assert capsys.readouterr().err.startswith(f"load: {path}: line 1: 600 tokens are 2 blocks")
        assert not (tmp_path / "out").exists()

    def test_a_host_without_a_model_says_what_is_missing(self, capsys):
        with pytest.raises(SystemExit) as ended:
            main(["--host", "http://127.0.0.1:1"])
        assert ended.value.code == 2
        assert "--host needs --model" in capsys.readouterr().err

    def test_a_target_that_is_no_url_is_refused(self):
        with pytest.raises(TargetError, match="must be a URL"):
            check(Target("file:///etc/passwd", "m"))


@pytest.mark.integration
class TestOnTheStack:
    def test_twenty_seconds_of_everything_have_no_failure(self, tmp_path, capsys):
        arguments = ["--seconds", "20", "--warm-up-seconds", "0", "--users", "4", "--think-seconds", "0.2"]
        assert (
            main([*arguments, "--abort-share", "0.1", "--stream-share", "0.8", "--out", str(tmp_path)]) == 0
        )
        document = json.loads((tmp_path / "results.json").read_text())
        assert document["parameters"]["workload"] == "mixed"
        assert {series["kind"] for series in document["series"]} == {"end", "ttft", "itl"}
        assert capsys.readouterr().out.splitlines()[-1].startswith("load: ")
        sent = list(samples.read(tmp_path / "samples.jsonl"))
        assert any(sample.left for sample in sent)
        assert any(sample.cached_tokens for sample in sent)
        assert report_main([str(tmp_path)]) == 0
        assert (tmp_path / "report.html").stat().st_size > 10_000


@pytest.mark.integration
@pytest.mark.slow
def test_a_master_and_two_workers_share_the_users_between_them(tmp_path):
    """As docs/load-testing.md has it, on loopback."""
    port, master_port = free_ports(2)
    locust = [
        sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--model", "m", "--workload", "chat",
        "--stream-share", "0", "--think-seconds", "0.1",
    ]  # fmt: skip
    with Supervisor(tmp_path) as supervisor:
        supervisor.wait_ready([supervisor.start(services.echo_server("echo", port))], deadline_seconds=30)
        master = subprocess.Popen(
            [
                *locust, "--master", "--master-bind-host", "127.0.0.1",
                "--master-bind-port", str(master_port),
                "--expect-workers", "2", "--host", f"http://127.0.0.1:{port}", "--users", "4",
                "--spawn-rate", "4", "--headless", "--run-time", "4s", "--json",
            ],
            stdout=subprocess.PIPE,
            env=environment(),
        )  # fmt: skip
        workers = [
            subprocess.Popen([*locust, "--worker", "--master-port", str(master_port)], env=environment())
            for _ in range(2)
        ]
        told, _ = master.communicate(timeout=60)
        assert [master.returncode, *(worker.wait(timeout=30) for worker in workers)] == [0, 0, 0]
    stats = json.loads(told)
    assert sum(each["num_requests"] for each in stats) > 20
    assert sum(each["num_failures"] for each in stats) == 0
