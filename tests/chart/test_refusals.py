"""Values that cannot work are refused when the chart renders, by a sentence that names the value."""

import re

import pytest

from tests.chart.matrix import ROUTED, TIER, merged
from tests.chart.rendering import Refused, render

FULL_DUPLEX = {"tokenext": {"requestBody": "FULL_DUPLEX_STREAMED", "failOpen": False}}
STANDALONE_DNS = {"envoy": {"pool": "dns"}}
NONE = {"workers": {"kind": "none"}}
ALONE = "with epp.enabled=false the chart installs tokenext alone"

SCHEMA = [
    ("an unknown key", {"tokenxt": {}}, "tokenxt"),
    ("an unknown key within", {"tokenext": {"replica": 1}}, "replica"),
    ("a wrong type", {"tokenext": {"replicas": "two"}}, "/tokenext/replicas"),
    ("a port out of range", {"epp": {"port": 70000}}, "/epp/port"),
    ("an unknown provider", {"provider": "nginx"}, "/provider"),
    ("an unknown body mode", {"tokenext": {"requestBody": "STREAMED"}}, "/tokenext/requestBody"),
    ("no models", {"models": []}, "/models"),
    ("a model without a source", {"models": [{"name": "a"}]}, "source"),
    (
        "an unknown hand-off",
        {"models": [{"name": "a", "source": "a", "handoff": "tgi"}]},
        "/models/0/handoff",
    ),
    ("too many ports", {"pool": {"targetPorts": list(range(8000, 8009))}}, "/pool/targetPorts"),
    (
        "a weight of nothing",
        {"modelRewrites": [{"name": "a", "targets": [{"model": "b", "weight": 0}]}]},
        "weight",
    ),
    (
        "an unknown kind of strategy",
        {"epp": {"strategies": {"a": {"kind": "magic"}}}},
        "/epp/strategies/a/kind",
    ),
    (
        "an unknown filter stage",
        {"kgateway": {"filterStage": {"stage": "First"}}},
        "/kgateway/filterStage/stage",
    ),
]

PAIRS = [
    ({"tokenext": {"requestBody": "FULL_DUPLEX_STREAMED"}}, "tokenext.failOpen=true"),
    ({"tokenext": {"placement": "service", "processes": 2}}, "tokenext.processes=2"),
    ({"provider": "istio", "tokenext": {"processes": 3}}, "tokenext.processes=3"),
    ({"tokenext": {"processes": 4, "adminPort": 9002}}, "tokenext.adminPort=9002"),
    ({"tokenext": {"processes": 4, "port": 9092}}, "tokenext.port=9092"),
    ({"tokenext": {"placement": "sidecar", "adminPort": 9091}}, "tokenext.adminPort=9091"),
    ({"tokenext": {"placement": "sidecar", "tls": {"secretName": "t"}}}, "tokenext.tls.secretName=t"),
    ({"tokenext": {"processes": 4, "tls": {"secretName": "t", "port": 9087}}}, "tokenext.tls.port=9087"),
    ({"tokenext": {"http": {"enabled": True, "port": 9000}}}, "tokenext.http.port=9000"),
    ({"tokenext": {"processes": 4, "http": {"enabled": True, "port": 9087}}}, "tokenext.http.port=9087"),
    (
        {"tokenext": {"tls": {"secretName": "t"}, "http": {"enabled": True, "port": 9200}}},
        "tokenext.http.port=9200",
    ),
    ({"tokenext": {"processes": 4, "tls": {"secretName": "t", "port": 9003}}}, "tokenext.tls.port=9003"),
    (
        {"tokenext": {"placement": "service", "tls": {"secretName": "t", "requireClientCertificate": True}}},
        "tokenext.tls.requireClientCertificate=true: the picker calls",
    ),
    (
        {"tokenext": {"tls": {"requireClientCertificate": True}}},
        "tokenext.tls.requireClientCertificate=true: tokenext.tls.secretName",
    ),
    (
        {"tokenext": {"placement": "sidecar", "autoscaling": {"enabled": True}}},
        "tokenext.autoscaling.enabled=true",
    ),
    ({"tokenext": {"autoscaling": {"minReplicas": 20}}}, "tokenext.autoscaling.minReplicas=20"),
    ({"tokenext": {"limits": {"drain_seconds": 1}}}, "tokenext.limits.drain_seconds"),
    ({"tokenext": {"limits": {"linger_seconds": 1}}}, "tokenext.limits.linger_seconds"),
    (
        {
            "models": [
                {"name": "a", "source": "a", "handoff": "dynamo"},
                {"name": "b", "source": "b", "aliases": ["a"]},
            ]
        },
        'models[1]: the name "a"',
    ),
    ({"provider": "kgateway", **ROUTED, "models": [{"name": "a", "source": "a"}]}, "models[0].handoff=none"),
    ({"models": [{"name": "a", "source": "a", "handoff": "vllm"}]}, "models[0].handoff=vllm"),
    ({"epp": {"defaultStrategy": "best"}}, '"best" is none of the strategies'),
    ({"epp": {"fallback": ["later"]}}, '"later" is none of the strategies'),
    (
        {
            "dynamo": {"discovery": "etcd", "etcd": {"enabled": True}},
            "epp": {"strategies": {"dynamo": {"kind": "dynamo"}}},
        },
        "dynamo.discovery=etcd",
    ),
    (
        merged(NONE, {"pool": {"selector": {"app": "x"}}, "epp": {"strategies": {"d": {"kind": "dynamo"}}}}),
        "epp.strategies.d",
    ),
    (
        {"epp": {"replicaSync": True, "strategies": {"s": {"kind": "dynamo-selection"}}}},
        "epp.replicaSync=true",
    ),
    ({"epp": {"replicaSync": True, "strategies": {"s": {"kind": "dynamo"}}}}, "epp.replicaSync=true"),
    (
        {"epp": {"replicaSync": True}, "networkPolicy": {"enabled": True}, "dynamo": {"eventPlane": "zmq"}},
        "epp.replicaSync=true",
    ),
    (
        merged(NONE, {"pool": {"selector": {"app": "x"}}, "epp": {"replicaSync": True}}),
        "epp.replicaSync=true",
    ),
    (
        {"epp": {"strategies": {"i": {"kind": "internal", "config": "picker.yaml"}}}},
        "epp.strategies.i.config",
    ),
    ({"epp": {"enabled": False}}, f"tokenext.http.enabled=false: {ALONE}"),
    (merged(TIER, {"provider": "istio"}), f"provider=istio: {ALONE}"),
    (merged(TIER, {"carrier": "body"}), f"carrier=body: {ALONE}"),
    (merged(TIER, {"tokenext": {"placement": "sidecar"}}), f"tokenext.placement=sidecar: {ALONE}"),
    (merged(TIER, {"tokenext": {"processes": 2}}), "tokenext.processes=2"),
    (merged(TIER, {"gateway": {"create": True}}), f"gateway.create=true: {ALONE}"),
    (merged(TIER, {"httpRoute": {"create": True}}), f"httpRoute.create=true: {ALONE}"),
    (merged(TIER, {"tls": {"enabled": True, "secretName": "t"}}), f"tls.enabled=true: {ALONE}"),
    (merged(TIER, {"workers": {"kind": "vllm"}}), f"workers.kind=vllm: {ALONE}"),
    (merged(TIER, {"objectives": [{"name": "chat", "priority": 1}]}), f"objectives: {ALONE}"),
    (
        merged(TIER, {"modelRewrites": [{"name": "a", "targets": [{"model": "b"}]}]}),
        f"modelRewrites: {ALONE}",
    ),
    (NONE, "pool.selector"),
    ({"pool": {"selector": {"app.kubernetes.io/component": "server"}}}, "pool.selector"),
    ({"models": [{"name": "a", "source": "/models/a"}]}, "models[0].source=/models/a"),
    ({"pool": {"targetPorts": [8000, 8001]}}, "pool.targetPorts"),
    ({"pool": {"create": False}}, "pool.name"),
    ({"provider": "kgateway", **ROUTED, "carrier": "metadata"}, "carrier=metadata"),
    (
        {
            "provider": "envoygateway",
            **ROUTED,
            "carrier": "metadata",
            "envoyGateway": {"endpointPicker": "aiGateway"},
        },
        "carrier=metadata",
    ),
    ({"provider": "kgateway", **ROUTED, "kgateway": {"filterStage": None}}, "kgateway.filterStage"),
    ({"provider": "istio", "istio": {"operation": "INSERT_AFTER"}}, "istio.anchorFilter"),
    ({"gateway": {"create": True}}, "gateway.className"),
    ({"tls": {"enabled": True}}, "tls.secretName"),
    ({"provider": "istio", "tls": {"enabled": True, "secretName": "a"}}, "tls.enabled=true"),
    ({"tls": {"enabled": True, "secretName": "a"}, "httpRoute": {"create": True}}, "tls.enabled=true"),
    ({"provider": "envoygateway"}, "httpRoute.name"),
    ({"provider": "kgateway"}, "httpRoute.name"),
    ({"provider": "envoygateway", **ROUTED, "epp": {"failureMode": "FailOpen"}}, "epp.failureMode=FailOpen"),
    ({"epp": {"failureMode": "FailOpen"}}, "epp.failureMode=FailOpen"),
    (
        merged(STANDALONE_DNS, {"carrier": "body", "epp": {"failureMode": "FailOpen"}}),
        "epp.failureMode=FailOpen",
    ),
    ({"epp": {"destinationFallbacks": 1}}, "epp.destinationFallbacks=1"),
    ({"envoy": {"adminPort": 8080}}, "envoy.adminPort=8080"),
    ({"dynamo": {"nats": {"enabled": False}}}, "dynamo.nats.url"),
    (
        {"dynamo": {"discovery": "etcd"}, "epp": {"strategies": {"i": {"kind": "internal"}}}},
        "dynamo.etcd.url",
    ),
    (
        {
            "workers": {"kind": "graph"},
            "dynamo": {"discovery": "etcd", "etcd": {"url": "http://etcd:2379"}},
            "epp": {"strategies": {"i": {"kind": "internal"}}},
        },
        "dynamo.discovery=etcd",
    ),
]


@pytest.mark.parametrize(("what", "values", "named"), SCHEMA, ids=[each[0] for each in SCHEMA])
def test_the_schema_names_what_is_wrong(what, values, named):
    with pytest.raises(Refused, match=re.escape(named)):
        render(values)


@pytest.mark.parametrize(("values", "named"), PAIRS, ids=[f"{each[1]}-{i}" for i, each in enumerate(PAIRS)])
def test_an_impossible_pair_is_refused_by_a_sentence_that_begins_with_the_value(values, named):
    with pytest.raises(Refused) as refused:
        render(values)
    sentence = str(refused.value).partition("checks.yaml:1:4): ")[2]
    assert named in sentence, str(refused.value)
    assert len(sentence) > len(named) + 10, "a sentence says why"


def test_a_pool_that_would_select_the_services_themselves_is_refused():
    for labels in (
        {"app.kubernetes.io/part-of": "tokenext-chain"},
        {"app.kubernetes.io/instance": "rel"},
        {"app.kubernetes.io/component": "epp"},
    ):
        with pytest.raises(Refused, match=r"pool\.selector: .* also selects the pods of (tokenext|epp)"):
            render(merged(NONE, {"pool": {"selector": labels}}))


def test_a_pod_label_cannot_draw_a_service_into_the_pool():
    values = merged(NONE, {"pool": {"selector": {"app": "vllm"}}, "epp": {"podLabels": {"app": "vllm"}}})
    with pytest.raises(Refused, match=r"pool\.selector: .* also selects the pods of epp"):
        render(values)
    with pytest.raises(Refused, match=r"pool\.selector: .* also selects the pods of tokenext"):
        render(merged(NONE, {"pool": {"selector": {"app": "vllm"}}, "commonLabels": {"app": "vllm"}}))
