"""The EnvoyFilter on a gateway as Istio builds it: tokenext before the picker, and its record forwarded."""

import json

import pytest

from loadtests.stack import envoy_binary
from loadtests.stack.envoy_clusters import TcpAddress, grpc_cluster
from tests.chart import istio_patches
from tests.chart.matrix import MORE, merged
from tests.chart.rendering import render

LOCAL = TcpAddress("127.0.0.1", 9)
CASES = {
    "default": {"provider": "istio"},
    **{name: values for name, values in MORE.items() if name.startswith("istio")},
}


def patched(values):
    release = render(values)
    gateway = istio_patches.gateway(LOCAL, [LOCAL], TcpAddress("127.0.0.1", 0), LOCAL, "/dev/null")
    bootstrap = istio_patches.apply(release.one("EnvoyFilter"), gateway)
    cluster = istio_patches.manager(bootstrap)["httpFilters"][0]["typedConfig"]["grpcService"]["envoyGrpc"][
        "clusterName"
    ]
    bootstrap["staticResources"]["clusters"].append(grpc_cluster(cluster, (LOCAL,)).to_dict())
    return release, bootstrap


@pytest.mark.parametrize("name", CASES)
def test_tokenext_runs_before_the_picker_which_gets_its_record(name):
    release, bootstrap = patched(CASES[name])
    tokenext, epp, router = istio_patches.manager(bootstrap)["httpFilters"]
    assert tokenext["name"] == f"{istio_patches.EXT_PROC}.tokenext"
    assert epp["name"] == istio_patches.EXT_PROC
    assert router["name"] == "envoy.filters.http.router"
    (written,) = tokenext["typedConfig"]["metadataOptions"]["receivingNamespaces"]["untyped"]
    assert written in epp["typedConfig"]["metadataOptions"]["forwardingNamespaces"]["untyped"]
    assert f"metadata_namespace: {written}\n" in release.config("epp", "epp.yaml")
    (listener,) = bootstrap["staticResources"]["listeners"]
    assert listener["perConnectionBufferLimitBytes"] == 33554432


def test_the_cluster_is_istios_name_of_tokenexts_service():
    release, bootstrap = patched({"provider": "istio", "tokenext": {"port": 9100}})
    service = release.one("Service", "-tokenext")
    name, namespace = service["metadata"]["name"], service["metadata"]["namespace"]
    cluster = bootstrap["staticResources"]["clusters"][-1]["name"]
    assert cluster == f"outbound|9100||{name}.{namespace}.svc.cluster.local"
    assert [each["port"] for each in service["spec"]["ports"]] == [9100]


def test_the_filter_is_in_the_gateways_namespace_and_names_it():
    values = merged(CASES["istio-anchored"], {"gateway": {"name": "edge"}})
    envoy_filter = render(values).one("EnvoyFilter")
    assert envoy_filter["metadata"]["namespace"] == "istio-ingress"
    assert envoy_filter["spec"]["targetRefs"] == [
        {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"}
    ]


@pytest.mark.integration
@pytest.mark.parametrize("name", CASES)
def test_envoy_takes_the_patched_gateway(name, tmp_path):
    config = tmp_path / "envoy.json"
    config.write_text(json.dumps(patched(CASES[name])[1]))
    envoy_binary.validate(envoy_binary.find(), config)
