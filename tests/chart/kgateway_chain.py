"""A gateway as kgateway builds it, by its translator's source: a GatewayExtension's filter, and the picker's.

The picker's filter has full duplex bodies, forwards envoy.lb.subset_hint only, and calls over TLS. A
GatewayExtension cannot say which namespaces a processor may write: none.
"""

import json
from collections.abc import Sequence
from typing import Any

from loadtests.stack.envoy_clusters import StaticPool, TcpAddress, grpc_cluster
from loadtests.stack.envoy_config import EnvoyOptions, render
from tests.chart.istio_patches import manager, picker_filter

Json = dict[str, Any]
TLS = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext"


def gateway(
    extension: Json,
    *,
    tokenext: TcpAddress,
    epp: TcpAddress,
    workers: Sequence[TcpAddress],
    listen: TcpAddress,
    admin: TcpAddress,
) -> Json:
    bootstrap: Json = json.loads(
        render(EnvoyOptions(listen=listen, pool=StaticPool(tuple(workers)), admin=admin))
    )
    picker = picker_filter()
    picker["typedConfig"]["metadataOptions"]["forwardingNamespaces"]["untyped"] = ["envoy.lb.subset_hint"]
    manager(bootstrap)["httpFilters"][:0] = [extension_filter(extension), picker]
    secure = grpc_cluster("epp", (epp,)).to_dict()
    context = {"@type": TLS, "commonTlsContext": {"validationContext": {}}}
    secure["transportSocket"] = {"name": "envoy.transport_sockets.tls", "typedConfig": context}
    bootstrap["staticResources"]["clusters"] += [grpc_cluster("tokenext", (tokenext,)).to_dict(), secure]
    return bootstrap


def extension_filter(extension: Json) -> Json:
    """What a GatewayExtension of type ext_proc becomes."""
    spec = extension["spec"]["extProc"]
    return {
        "name": f"ext_proc/{extension['metadata']['name']}",
        "typedConfig": {
            "@type": "type.googleapis.com/envoy.extensions.filters.http.ext_proc.v3.ExternalProcessor",
            "grpcService": {"envoyGrpc": {"clusterName": "tokenext"}},
            "failureModeAllow": spec["failOpen"],
            "messageTimeout": spec["messageTimeout"],
            "statPrefix": spec["statPrefix"],
            "routeCacheAction": spec["routeCacheAction"].upper(),
            "processingMode": spec["processingMode"],
        },
    }
