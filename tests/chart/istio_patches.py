"""What Istio makes of an EnvoyFilter, as far as the chart's patches need it: the operations INSERT_FIRST,
INSERT_BEFORE, INSERT_AFTER and MERGE on HTTP filters, and MERGE on listeners.

The gateway that is patched has the picker's filter as Istio builds it (pilot/pkg/networking/core: full duplex
bodies, envoy.lb forwarded and received, named envoy.filters.http.ext_proc), and a router.
"""

import copy
import json
from collections.abc import Sequence
from typing import Any

from loadtests.stack.chart_envoy import ChartEnvoy, options
from loadtests.stack.envoy_clusters import StaticPool, TcpAddress, grpc_cluster
from loadtests.stack.envoy_config import EnvoyOptions, render

Json = dict[str, Any]
EXT_PROC = "envoy.filters.http.ext_proc"


def gateway(
    epp: TcpAddress, workers: Sequence[TcpAddress], listen: TcpAddress, admin: TcpAddress, log: str
) -> Json:
    """A gateway of Istio's with a route to an InferencePool, before any EnvoyFilter."""
    made = options(ChartEnvoy())
    bootstrap: Json = json.loads(
        render(
            EnvoyOptions(
                listen=listen, pool=StaticPool(tuple(workers)), admin=admin, access_log=made.access_log
            )
        )
    )
    manager(bootstrap)["accessLog"][0]["typedConfig"]["path"] = log
    manager(bootstrap)["httpFilters"].insert(0, picker_filter())
    bootstrap["staticResources"]["clusters"].append(grpc_cluster("epp", (epp,)).to_dict())
    return bootstrap


def picker_filter() -> Json:
    full_duplex = {"requestBodyMode": "FULL_DUPLEX_STREAMED", "responseBodyMode": "FULL_DUPLEX_STREAMED"}
    sent = dict.fromkeys(
        ("requestHeaderMode", "requestTrailerMode", "responseHeaderMode", "responseTrailerMode"), "SEND"
    )
    return {
        "name": EXT_PROC,
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpcService": {"envoyGrpc": {"clusterName": "epp"}, "timeout": "10s"},
            "processingMode": {**sent, **full_duplex},
            "messageTimeout": "1000s",
            "metadataOptions": {
                "receivingNamespaces": {"untyped": ["envoy.lb"]},
                "forwardingNamespaces": {"untyped": ["envoy.lb"]},
            },
        },
    }


def manager(bootstrap: Json) -> Json:
    found: Json = bootstrap["staticResources"]["listeners"][0]["filterChains"][0]["filters"][0]["typedConfig"]
    return found


def apply(envoy_filter: Json, bootstrap: Json) -> Json:
    """The bootstrap after the patches, in their order. One that finds nothing to change is an error."""
    patched = copy.deepcopy(bootstrap)
    for each in envoy_filter["spec"]["configPatches"]:
        patch, match = each["patch"], each.get("match", {})
        assert match.get("context") == "GATEWAY"
        if each["applyTo"] == "LISTENER":
            assert patch["operation"] == "MERGE"
            for listener in patched["staticResources"]["listeners"]:
                listener.update(merged(listener, patch["value"]))
        else:
            assert each["applyTo"] == "HTTP_FILTER"
            _patch_filters(manager(patched)["httpFilters"], patch, match["listener"]["filterChain"]["filter"])
    return patched


def _patch_filters(filters: list[Json], patch: Json, within: Json) -> None:
    assert within["name"] == "envoy.filters.network.http_connection_manager"
    operation, value = patch["operation"], patch["value"]
    if operation == "INSERT_FIRST":
        filters.insert(0, value)
        return
    names = [each["name"] for each in filters]
    at = names.index(within["subFilter"]["name"])
    if operation == "MERGE":
        filters[at] = merged(filters[at], value)
    else:
        filters.insert({"INSERT_BEFORE": at, "INSERT_AFTER": at + 1}[operation], value)


def merged(old: Json, new: Json) -> Json:
    """As protobuf merges: messages field by field, lists one behind the other."""
    result = dict(old)
    for key, value in new.items():
        before = result.get(key)
        if isinstance(before, dict) and isinstance(value, dict):
            result[key] = merged(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            result[key] = before + value
        else:
            result[key] = value
    return result
