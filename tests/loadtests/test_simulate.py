"""The simulation: its workload is the same for the same seed, its arithmetic is right, and it runs."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from loadtests.simulate.bounds import check
from loadtests.simulate.report import draw, summary, table, write
from loadtests.simulate.run import Outcome, Sample
from loadtests.simulate.workload import Conversation, Shape, Turn, best_hit_rate, conversations

REPOSITORY = Path(__file__).resolve().parents[2]
SMALL = Shape(conversations=30, applications=3, turns=2, system_tokens=50)


def test_the_same_seed_makes_the_same_workload_and_another_one_another():
    assert conversations(SMALL) == conversations(SMALL)
    assert conversations(SMALL) != conversations(Shape(seed=2, conversations=30, applications=3, turns=2))


def test_conversations_share_system_prompts_and_nothing_else():
    made = conversations(SMALL)
    assert len({each.system for each in made}) == 3
    assert len({turn.said for each in made for turn in each.turns}) == SMALL.requests
    assert all(0 <= each.start_seconds <= SMALL.seconds for each in made)


def test_the_best_hit_rate_counts_what_any_earlier_prompt_began_with():
    """One of 10 + 5 tokens, then 10 + 5 + 2 of reply + 5; the second conversation finds the system prompt."""
    system = tuple(range(10))
    turns = (Turn((1,) * 5, 2, 0.0), Turn((2,) * 5, 2, 0.0))
    first, second = (Conversation(start, system, turns) for start in (0.0, 1.0))
    assert best_hit_rate([first]) == pytest.approx((0 + 17) / (15 + 22))
    assert best_hit_rate([second, first]) == pytest.approx((0 + 17 + 10 + 17) / (2 * (15 + 22)))


def outcome(strategy: str, cached: int, milliseconds: float, count: int = 10) -> Outcome:
    samples = tuple(
        Sample(f"worker-{number % 2}", 100, cached, 0.001, milliseconds / 1e3, 1.0) for number in range(count)
    )
    return Outcome(strategy, samples, Counter())


def outcomes(**changes) -> dict[str, Outcome]:
    plain = {"random": (30, 100.0), "round-robin": (30, 100.0), "internal": (70, 50.0), "dynamo": (70, 50.0)}
    return {name: outcome(name, *(changes.get(name) or values)) for name, values in plain.items()}


def missed(results, requests=10) -> list[str]:
    return [bound.what for bound in check(results, requests=requests, best=0.8) if not bound.holds]


def test_bounds_hold_where_prefixes_are_followed():
    assert missed(outcomes()) == []


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"dynamo": (40, 50.0)}, "dynamo: hit rate by the best possible"),
        ({"random": (60, 100.0)}, "dynamo: hit rate above random"),
        ({"round-robin": (60, 100.0)}, "internal: hit rate above round-robin"),
        ({"internal": (70, 99.0)}, "internal: first token by random, median"),
        ({"round-robin": (30, 50.0)}, "dynamo: first token by round-robin, median"),
    ],
)
def test_a_strategy_that_gains_too_little_misses_its_bound(changes, what):
    assert any(each.startswith(what) for each in missed(outcomes(**changes)))


def test_a_request_that_got_no_answer_misses_a_bound():
    assert missed(outcomes(), requests=11) == [f"{name}: requests answered >= 11" for name in outcomes()]


def test_an_outcome_adds_up():
    mixed = Outcome("x", outcome("x", 50, 10.0, 3).samples + outcome("x", 0, 30.0, 1).samples, Counter())
    assert mixed.hit_rate == pytest.approx(150 / 400)
    assert (mixed.first_token_ms(0.5), mixed.first_token_ms(0.99)) == (pytest.approx(10), pytest.approx(30))
    assert mixed.imbalance == pytest.approx(3 / 2)


def test_the_report_is_a_table_a_picture_a_file_and_one_line(tmp_path):
    results = outcomes()
    bounds = check(results, requests=10, best=0.8)
    assert table(results, 0.8).row_count == 4
    draw(results, 0.8, tmp_path / "it.png")
    assert (tmp_path / "it.png").read_bytes().startswith(b"\x89PNG")
    write(results, bounds, settings={"seed": 1}, best=0.8, path=tmp_path / "it.json")
    document = json.loads((tmp_path / "it.json").read_text())
    assert document["strategies"]["dynamo"]["hit_rate"] == 0.7
    assert summary(results, bounds) == (
        "simulate: hit rate / first token p50: random 0.30 / 100 ms, round-robin 0.30 / 100 ms, "
        "internal 0.70 / 50 ms, dynamo 0.70 / 50 ms; ok, 14 bounds hold"
    )
    poor = outcomes(dynamo=(30, 100.0))
    assert "; MISSED dynamo: hit rate" in summary(poor, check(poor, requests=10, best=0.8))


@pytest.mark.integration
@pytest.mark.slow
def test_a_small_simulation_runs_writes_its_results_and_ends_with_its_summary(tmp_path):
    command = [sys.executable, "-m", "loadtests.simulate", "--only", "round-robin", "internal", "dynamo"]
    command += ["--conversations", "6", "--seconds", "1", "--workers", "2", "--speedup", "5"]
    done = subprocess.run(
        [*command, "--out", str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    last = done.stdout.splitlines()[-1]
    assert last.startswith("simulate: hit rate / first token p50: round-robin 0."), done.stderr[-2000:]
    document = json.loads((tmp_path / "simulate.json").read_text())
    for result in document["strategies"].values():
        assert (result["requests"], result["failed"]) == (24, {})
        assert 0 < result["hit_rate"] < 1
    assert (tmp_path / "simulate.png").exists()
    assert done.returncode in (0, 1), "so small a run may miss a bound"


def test_help_says_what_it_does_and_how_it_ends():
    done = subprocess.run(
        [sys.executable, "-m", "loadtests.simulate", "--help"],
        cwd=REPOSITORY,
        capture_output=True,
        check=True,
    )
    assert b"exit status: 0 all bounds hold" in done.stdout
