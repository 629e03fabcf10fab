"""`make chart` ends with one line that sums up, and does not pass over what falls short."""

import pytest

from tests.chart import __main__ as make_chart
from tests.chart.matrix import combinations


@pytest.fixture
def quick(monkeypatch):
    """A few renders, no refusals, and an Envoy that takes everything."""
    some = [next(combinations()), ("zmq", {"dynamo": {"eventPlane": "zmq"}})]
    monkeypatch.setattr(make_chart, "combinations", lambda: iter(some))
    monkeypatch.setattr(make_chart, "refusals", list)
    monkeypatch.setattr(make_chart, "bootstraps", lambda *_: (2, []))
    monkeypatch.setattr(make_chart, "LEAST_RENDERS", 2)
    return monkeypatch


def closing(capsys):
    return capsys.readouterr().out.splitlines()


def test_all_is_well(quick, capsys):
    assert make_chart.main() == 0
    (line,) = closing(capsys)
    assert line.startswith("chart: ok: 2 renders, ")
    assert ", 0 problems, " in line


def test_fewer_renders_than_promised_are_a_failure(quick, capsys):
    quick.setattr(make_chart, "LEAST_RENDERS", 40)
    assert make_chart.main() == 1
    problem, line = closing(capsys)
    assert problem == "2 renders, and 40 were promised"
    assert line.startswith("chart: FAILED: 2 renders, ")


def test_a_combination_that_is_refused_is_a_failure(quick, capsys):
    more = [("impossible", {"tls": {"enabled": True}}), *make_chart.combinations()]
    quick.setattr(make_chart, "combinations", lambda: iter(more))
    assert make_chart.main() == 1
    problem, line = closing(capsys)
    assert problem.startswith("impossible: ")
    assert "tls.secretName" in problem
    assert ", 1 problems, " in line


def test_what_envoy_or_a_check_says_is_a_failure(quick, capsys):
    def complains(_):
        raise AssertionError("a selector is missing")

    quick.setattr(make_chart, "bootstraps", lambda *_: (1, ["standalone: unknown field"]))
    quick.setattr(make_chart, "CHECKS", {"complains": complains})
    assert make_chart.main() == 1
    *problems, line = closing(capsys)
    assert len(problems) == 3
    assert problems[0].endswith("complains: a selector is missing")
    assert problems[2] == "standalone: unknown field"
    assert ", 3 problems, " in line


def test_values_that_should_be_refused_and_are_not_are_a_failure(monkeypatch):
    monkeypatch.setattr(make_chart, "SCHEMA", [("nothing wrong", {}, "something")])
    monkeypatch.setattr(make_chart, "PAIRS", [({"tls": {"enabled": True}}, "another.value")])
    rendered, misnamed = make_chart.refusals()
    assert rendered == "refusal: something: rendered {}"
    assert misnamed.startswith("refusal: another.value is not named by: ")
