"""Comparisons: every target is a stack of its own, and unknown ones are refused with those that there are."""

import pytest

from loadtests.compare.__main__ import main
from loadtests.compare.contenders import CONTENDERS
from loadtests.load import record
from loadtests.load.samples import read
from loadtests.report.__main__ import main as report
from loadtests.stack.chain_options import Part
from loadtests.stack.model_source import DEFAULT_MODEL, Model

MODEL = Model("m", DEFAULT_MODEL)


def options(name):
    return CONTENDERS[name].chain_options(MODEL, workers=2, speedup=1.0, blocks=64)


def test_plain_envoy_has_no_filter_and_the_empty_ones_let_pass():
    assert (options("envoy").tokenext, options("envoy").epp) == (Part.ABSENT, Part.ABSENT)
    assert (options("empty").tokenext, options("empty").epp) == (Part.PASSING, Part.PASSING)


@pytest.mark.parametrize("strategy", ["round-robin", "internal", "dynamo"])
def test_each_strategy_of_the_chain_stands_alone_so_that_none_falls_back_to_another(strategy):
    settings = options(f"chain-{strategy}").epp_settings
    assert (settings["default_strategy"], list(settings["strategies"])) == (strategy, [strategy])
    assert settings["fallback"] == []


def test_dynamos_front_ends_route_by_kv_without_any_filter_of_ours():
    chosen = options("frontend-kv")
    assert (chosen.tokenext, chosen.epp, chosen.frontend_router_mode) == (Part.ABSENT, Part.ABSENT, "kv")


def test_an_unknown_target_is_refused_with_those_that_there_are(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["envoi"])
    assert ended.value.code == 2
    assert "no target 'envoi': take some of envoy, empty" in capsys.readouterr().err


def test_a_model_that_is_nowhere_is_one_line_and_status_2(capsys):
    assert main(["--model", "nothing"]) == 2
    assert capsys.readouterr().err.startswith("compare: nothing: neither a directory nor one of")


@pytest.mark.integration
@pytest.mark.slow
def test_every_target_gets_the_same_requests(tmp_path):
    arguments = ["envoy", "chain-dynamo", "--model", "own", "--rounds", "1", "--asks", "2", "--users", "3"]
    assert main([*arguments, "--think-seconds", "0", "--out", str(tmp_path)]) == 0
    sent = {
        target.name: sorted(
            (sample.name, sample.body_bytes) for sample in read(tmp_path / target.rounds[0].samples)
        )
        for target in record.read(tmp_path).targets
    }
    assert sent["envoy"] == sent["chain-dynamo"]
    assert len(sent["envoy"]) == 6
    assert report([str(tmp_path)]) == 0
