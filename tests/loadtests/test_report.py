"""Reports: figures of what was recorded, nothing averaged away, and a page that needs nothing else."""

import json
import re

import pytest

from loadtests.load import record, samples
from loadtests.load.record import Round, TargetRecord
from loadtests.load.samples import Sample
from loadtests.report.__main__ import main
from loadtests.report.figures import figures


def sample(at=0.0, **changes) -> Sample:
    fields = {
        "name": "chat", "seconds": 0.2, "body_bytes": 100, "first": 0.05, "prompt_tokens": 1_500,
        "cached_tokens": 1_000, "completion_tokens": 8,
    }  # fmt: skip
    return Sample(at=at, **{**fields, **changes})


ROUNDS = (
    Round("a/1.jsonl", 4.0, {"envoy": 0.2, "tokenext": 0.4}),
    Round("a/2.jsonl", 4.0, {"envoy": 0.2, "tokenext": 0.4}),
)
TARGET = TargetRecord("a", "the first one", ROUNDS, {"envoy": 50.0})
SAMPLES = [
    [sample(0.0), sample(1.0, first=0.07, prompt_tokens=9_000, cached_tokens=0)],
    [sample(0.0, failure="status 503", seconds=30.0, first=None, prompt_tokens=0), sample(2.0, left=True)],
]


@pytest.fixture
def folder(tmp_path):
    """A recorded comparison of two targets; the second one's name and words are hostile."""
    second = TargetRecord("<b>", "it & that", (Round("b.jsonl", 4.0),))
    record.write(tmp_path, "Two targets", {"seed": 1}, (TARGET, second))
    (tmp_path / "a").mkdir()
    for each, written in zip(ROUNDS, SAMPLES, strict=True):
        (tmp_path / each.samples).write_bytes(b"".join(map(samples.write_line, written)))
    (tmp_path / "b.jsonl").write_bytes(samples.write_line(sample(first=None, prompt_tokens=0)))
    return tmp_path


class TestFigures:
    def test_what_failed_is_counted_by_kind_and_in_no_time(self):
        found = figures(TARGET, SAMPLES)
        assert (found.requests, found.failed, found.failures) == (4, 1, {"status 503": 1})
        assert found.end[99] == 0.2
        assert found.firsts == (0.05, 0.05, 0.07)

    def test_who_left_has_a_first_token_and_no_end(self):
        found = figures(TARGET, SAMPLES)
        assert found.left == 1
        assert sum(each.count for each in found.over_time) == 2

    def test_the_hit_rate_is_of_tokens_and_not_of_requests(self):
        assert figures(TARGET, SAMPLES).hit_rate == pytest.approx(2_000 / 12_000)

    def test_prompts_are_told_apart_by_their_length(self):
        bins = figures(TARGET, SAMPLES).by_length
        assert [(each.tokens, each.count, each.first_p50) for each in bins] == [
            (1_000, 2, 0.05),
            (8_000, 1, 0.07),
        ]

    def test_cpu_is_per_request_over_all_rounds(self):
        assert figures(TARGET, SAMPLES).cpu_ms == {"envoy": 100.0, "tokenext": 200.0}

    def test_time_runs_through_the_targets_own_rounds(self):
        later = [[sample(3.0)], [sample(1.0)]]
        assert [round(each.at) for each in figures(TARGET, later).over_time] == [3, 5]

    def test_a_target_that_answered_nothing_has_no_times(self):
        found = figures(TARGET, [[sample(failure="status 500", first=None)], []])
        assert (found.end[50], found.first[50], found.hit_rate, found.over_time) == (None, None, None, ())


class TestPage:
    def test_it_is_one_file_with_its_pictures_inside(self, folder, capsys):
        assert main([str(folder)]) == 0
        assert (
            capsys.readouterr().out == f"report: 2 targets, 5 requests, 1 failed; {folder / 'report.html'}\n"
        )
        page = (folder / "report.html").read_text()
        assert page.count("data:image/png;base64,") == len(list(folder.glob("*.png"))) == 7
        assert not re.findall(r"(?:src|href)=\"(?!data:)", page)

    def test_failures_are_shown_by_kind(self, folder):
        main([str(folder)])
        page = (folder / "report.html").read_text()
        assert "What failed" in page
        assert "status 503" in page

    def test_names_are_text_and_never_markup(self, folder):
        main([str(folder)])
        page = (folder / "report.html").read_text()
        assert "&lt;b&gt;" in page
        assert "<b>" not in page

    def test_the_figures_are_there_as_json_too(self, folder):
        main([str(folder), "--out", str(folder / "out")])
        document = json.loads((folder / "out" / "report.json").read_text())
        assert document["parameters"] == {"seed": 1}
        assert [(each["name"], each["requests"], each["failed"]) for each in document["targets"]] == [
            ("a", 4, 1),
            ("<b>", 1, 0),
        ]

    def test_pictures_of_what_nobody_measured_are_left_out(self, tmp_path):
        record.write(tmp_path, "One", {}, (TargetRecord("a", "", (Round("s", 1.0),)),))
        (tmp_path / "s").write_bytes(samples.write_line(sample(first=None, prompt_tokens=0)))
        assert main([str(tmp_path)]) == 0
        assert [path.name for path in tmp_path.glob("*.png")] == ["over-time.png"]

    @pytest.mark.parametrize("broken", ["record.json", "a/2.jsonl"])
    def test_a_folder_that_is_no_run_is_one_line_and_status_2(self, folder, capsys, broken):
        (folder / broken).write_text("{")
        assert main([str(folder)]) == 2
        assert capsys.readouterr().err.startswith(f"report: {folder / broken}: ")
