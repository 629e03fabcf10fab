"""A gateway as Envoy Gateway builds it, by its translator's source (internal/xds/translator).

The processors of an EnvoyExtensionPolicy run in their order; among the route's endpoints the header of a
BackendTrafficPolicy chooses.
"""

import json
from collections.abc import Sequence
from typing import Any

from loadtests.stack.envoy_clusters import StaticPool, TcpAddress, grpc_cluster
from loadtests.stack.envoy_config import EnvoyOptions, render
from tests.chart.istio_patches import manager

Json = dict[str, Any]
BODIES = {"Buffered": "BUFFERED", "Streamed": "STREAMED", "FullDuplexStreamed": "FULL_DUPLEX_STREAMED"}


def gateway(
    policy: Json,
    backend_policy: Json,
    *,
    services: Sequence[TcpAddress],
    workers: Sequence[TcpAddress],
    listen: TcpAddress,
    admin: TcpAddress,
) -> Json:
    """`services` serve the policy's processors, in their order."""
    bootstrap: Json = json.loads(
        render(EnvoyOptions(listen=listen, pool=StaticPool(tuple(workers)), admin=admin))
    )
    processors = policy["spec"]["extProc"]
    manager(bootstrap)["httpFilters"][:0] = [
        processor_filter(each, f"processor-{index}") for index, each in enumerate(processors)
    ]
    clusters = bootstrap["staticResources"]["clusters"]
    (override,) = clusters[0]["loadBalancingPolicy"]["policies"]
    override["typedExtensionConfig"]["typedConfig"]["overrideHostSources"] = [
        {"header": each["header"]}
        for each in backend_policy["spec"]["loadBalancer"]["endpointOverride"]["extractFrom"]
    ]
    clusters += [
        grpc_cluster(f"processor-{index}", (address,)).to_dict()
        for index, address in enumerate(services[: len(processors)])
    ]
    return bootstrap


def processor_filter(processor: Json, cluster: str) -> Json:
    modes = {}
    for direction in ("request", "response"):
        options = processor["processingMode"].get(direction)
        body = BODIES[options["body"]] if options and "body" in options else "NONE"
        modes[f"{direction}HeaderMode"] = "SKIP" if options is None else "SEND"
        modes[f"{direction}BodyMode"] = body
        modes[f"{direction}TrailerMode"] = "SEND" if body == "FULL_DUPLEX_STREAMED" else "SKIP"
    metadata = processor["metadata"]
    return {
        "name": f"envoy.filters.http.ext_proc/{cluster}",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpcService": {"envoyGrpc": {"clusterName": cluster}, "timeout": "10s"},
            "failureModeAllow": processor["failOpen"],
            "messageTimeout": processor["messageTimeout"],
            "processingMode": modes,
            "metadataOptions": {
                "forwardingNamespaces": {"untyped": metadata.get("accessibleNamespaces", [])},
                "receivingNamespaces": {"untyped": metadata["writableNamespaces"]},
            },
        },
    }
