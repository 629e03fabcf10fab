"""What only an Envoy that others reach needs: TLS for clients, and a listener for probes and Prometheus.

Its admin interface stays on loopback: whoever reaches that can stop Envoy and read its configuration.
"""

from dataclasses import dataclass
from typing import Final

from loadtests.stack import envoy_clusters
from loadtests.stack.envoy_api import core, hcm, listener_api, protobuf, route_api, router, tls_api
from loadtests.stack.envoy_clusters import TcpAddress

__all__ = ["ADMIN", "PROBES", "ListenerTls", "probe_listener", "transport_socket"]

ADMIN: Final = "admin"
PROBES: Final = "probes"


@dataclass(frozen=True, slots=True)
class ListenerTls:
    """`secrets` is a file with an Envoy Secret called `name`: Envoy reads it, and what it names, again when
    it changes, so a renewed certificate needs no restart.
    """

    secrets: str
    name: str = "server"


def transport_socket(tls: ListenerTls) -> core.TransportSocket:
    source = core.ConfigSource(
        path_config_source=core.PathConfigSource(path=tls.secrets), resource_api_version=core.ApiVersion.V3
    )
    context = tls_api.DownstreamTlsContext(
        common_tls_context=tls_api.CommonTlsContext(
            tls_certificate_sds_secret_configs=[tls_api.SdsSecretConfig(name=tls.name, sds_config=source)],
            alpn_protocols=["h2", "http/1.1"],
        )
    )
    return core.TransportSocket(name="envoy.transport_sockets.tls", typed_config=protobuf.Any.pack(context))


def probe_listener(listen: TcpAddress) -> listener_api.Listener:
    """/ready and /stats/prometheus of the admin interface, and nothing else of it."""
    routes = [
        route_api.Route(match=route_api.RouteMatch(path=path), route=route_api.RouteAction(cluster=ADMIN))
        for path in ("/ready", "/stats/prometheus")
    ]
    manager = hcm.HttpConnectionManager(
        stat_prefix=PROBES,
        route_config=route_api.RouteConfiguration(
            name=PROBES,
            virtual_hosts=[route_api.VirtualHost(name=PROBES, domains=["*"], routes=routes)],
        ),
        http_filters=[
            hcm.HttpFilter(name="envoy.filters.http.router", typed_config=protobuf.Any.pack(router.Router()))
        ],
    )
    return listener_api.Listener(
        name=PROBES,
        address=envoy_clusters.address(listen),
        filter_chains=[
            listener_api.FilterChain(
                filters=[
                    listener_api.Filter(
                        name="envoy.filters.network.http_connection_manager",
                        typed_config=protobuf.Any.pack(manager),
                    )
                ]
            )
        ],
    )
