"""What `helm install` says at the end: how ids travel, and what this gateway cannot do."""

import pytest

from tests.chart.matrix import PROVIDERS, ROUTED, TIER, merged
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
    (TIER, "tokenext alone, for a picker that is not of this release"),
    (TIER, "DYN_EPP_VLLM_RENDER_URL=http://rel-tokenext-chain-tokenext.ns.svc.cluster.local:8100\n"),
    (TIER, 'vllm: {url: "http://rel-tokenext-chain-tokenext.ns.svc.cluster.local:8100"}}'),
    (TIER, "tokenext-chain-tokenext.ns.svc.cluster.local:9000\n"),
    (TIER, "Model qwen3-0.6b has the ids of profile dynamo."),
    (TIER, "networkPolicy.enabled says who may ask"),
    (
        merged(TIER, {"models": [{"name": "a", "source": "a"}]}),
        "Model a has the ids of profile transformers.",
    ),
    (
        merged(TIER, {"tokenext": {"tls": {"secretName": "t", "requireClientCertificate": True}}}),
        "cluster.local:9000 (TLS, with a certificate of yours: 9200)",
    ),
]


@pytest.mark.parametrize(("values", "sentence"), SAID, ids=[each[1][:40] for each in SAID])
def test_notes_say_what_matters_of_this_release(values, sentence):
    assert sentence in render(values).notes


def test_notes_do_not_warn_of_what_is_not_so():
    notes = render({"workers": {"kind": "none"}, "pool": {"selector": {"app": "vllm"}}}).notes
    assert "mockers" not in notes
    assert "kgateway" not in notes


def test_notes_of_tokenext_alone_do_not_speak_of_a_chain():
    models = [
        {"name": "a", "source": "a", "profile": "vllm"},
        {"name": "b", "source": "b", "handoff": "vllm"},
    ]
    notes = render(merged(TIER, {"models": models, "networkPolicy": {"enabled": True}})).notes
    for word in ("mockers", "inferencepool", "-epp", "-envoy", "has the ids of profile", "neither TLS"):
        assert word not in notes


def test_lines_of_notes_fit_a_terminal_and_none_is_left_open():
    for values in ({}, TIER, {"provider": "istio"}, merged(PROVIDERS["kgateway"], ROUTED)):
        for line in render(values).notes.splitlines():
            assert len(line) <= 160, line
            assert "<no value>" not in line
            assert "{{" not in line
