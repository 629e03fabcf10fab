"""What `helm install` says at the end: how ids travel, and what this gateway cannot do."""

import pytest

from tests.chart.matrix import PROVIDERS, ROUTED, merged
from tests.chart.rendering import render

SAID = [
    ({}, "Ids travel in Envoy's dynamic metadata, namespace tokenext."),
    ({}, "The workers are mockers: their replies are invented."),
    ({"provider": "istio"}, "namespace envoy.lb"),
    ({"provider": "istio"}, "runs for every route of Gateway inference-gateway"),
    ({"provider": "istio", "tokenext": {"metadataNamespace": "x"}}, "is patched to forward x"),
    (merged(PROVIDERS["kgateway"], ROUTED), "Ids travel in the request's body"),
    (merged(PROVIDERS["kgateway"], ROUTED), "releases\nwith filterStage have no InferencePool"),
    (
        merged(PROVIDERS["kgateway"], ROUTED),
        "over TLS, and takes any certificate: one that each pod makes for itself",
    ),
    (
        merged(PROVIDERS["aigateway"], ROUTED, {"epp": {"tls": {"secretName": "picker"}}}),
        "takes any certificate: that of Secret picker",
    ),
    ({"tokenext": {"placement": "service"}}, "there is no hand-off in this placement"),
    ({"tokenext": {"placement": "sidecar"}}, "asks tokenext beside it"),
]


@pytest.mark.parametrize(("values", "sentence"), SAID, ids=[each[1][:40] for each in SAID])
def test_notes_say_what_matters_of_this_release(values, sentence):
    assert sentence in render(values).notes


def test_notes_do_not_warn_of_what_is_not_so():
    notes = render({"workers": {"kind": "none"}, "pool": {"selector": {"app": "vllm"}}}).notes
    assert "mockers" not in notes
    assert "kgateway" not in notes


def test_lines_of_notes_fit_a_terminal_and_none_is_left_open():
    for values in ({}, {"provider": "istio"}, merged(PROVIDERS["kgateway"], ROUTED)):
        for line in render(values).notes.splitlines():
            assert len(line) <= 160, line
            assert "<no value>" not in line
            assert "{{" not in line
