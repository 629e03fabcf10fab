"""Envoy clusters: the ext_proc services over HTTP/2, and the pool of model servers."""

from dataclasses import dataclass
from datetime import timedelta
from ipaddress import ip_address
from typing import Final

from extproc import wellknown
from loadtests.stack.envoy_api import (
    cluster_api,
    core,
    endpoint_api,
    metadata_api,
    override_host,
    protobuf,
    round_robin,
    upstream_http,
)

__all__ = [
    "POOL",
    "Address",
    "DiscoveredPool",
    "DnsPool",
    "Pool",
    "StaticPool",
    "TcpAddress",
    "UnixAddress",
    "address",
    "grpc_cluster",
    "local_cluster",
    "pool_cluster",
]

POOL: Final = "pool"
CONNECT_TIMEOUT: Final = timedelta(seconds=1)
CHECK_INTERVAL: Final = timedelta(seconds=1)
# Envoy's default of 1,024 concurrent requests per cluster is less than one busy gateway has: the EPP's stream
# of an exchange stays open as long as its response.
CONCURRENCY_LIMIT: Final = 65_536
HTTP_OPTIONS: Final = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """`host` is an IP address, or (for ext_proc services) a DNS name."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class UnixAddress:
    path: str

    def __str__(self) -> str:
        return f"unix:{self.path}"


Address = TcpAddress | UnixAddress


@dataclass(frozen=True, slots=True)
class StaticPool:
    """Known endpoints. The destination list picks among them; without a usable one Envoy goes round robin."""

    endpoints: tuple[TcpAddress, ...]


@dataclass(frozen=True, slots=True)
class DnsPool:
    """A name whose addresses are the endpoints, as a headless Service has; one per port that serves.

    It behaves as a StaticPool does, with what DNS knows: an endpoint that Envoy has not resolved yet is not
    usable, and the request goes round robin.
    """

    names: tuple[TcpAddress, ...]


@dataclass(frozen=True, slots=True)
class DiscoveredPool:
    """Endpoints that only the EPP knows (pods): Envoy connects to the address in the destination metadata.

    The header is not read, since a client could send it. Envoy reads one address: a list is not understood.
    """


Pool = StaticPool | DnsPool | DiscoveredPool


def address(value: Address) -> core.Address:
    if isinstance(value, UnixAddress):
        return core.Address(pipe=core.Pipe(path=value.path))
    return core.Address(socket_address=core.SocketAddress(address=value.host, port_value=value.port))


# Envoy resets a connection on which so many frames of 16 KB wait to be sent, and all streams on it with it;
# its default is 10,000. Where bodies are streamed to a processor, each piece has all metadata beside it: some
# requests of a million ids (5 MB) at once reach that, and the streams they take along are other clients'.
MAX_FRAMES: Final = 1_000_000


def grpc_cluster(name: str, endpoints: tuple[Address, ...]) -> cluster_api.Cluster:
    """The processes of one ext_proc service, least loaded first.

    A process that is to end says so by gRPC health and lingers (`linger_seconds`); a dead one is left out at
    the first connection that fails. Where none is left, all are used as if nothing were known of them.
    """
    if not endpoints:
        raise ValueError(f"{name}: at least one endpoint is needed")
    by_name = any(isinstance(each, TcpAddress) and not _is_ip(each.host) for each in endpoints)
    types = cluster_api.ClusterDiscoveryType
    return cluster_api.Cluster(
        name=name,
        type=types.STRICT_DNS if by_name else types.STATIC,
        connect_timeout=CONNECT_TIMEOUT,
        lb_policy=cluster_api.ClusterLbPolicy.LEAST_REQUEST,
        circuit_breakers=_limits(),
        health_checks=[_readiness()],
        outlier_detection=_dead_left_out(),
        # By default who is left out is still used for up to a second, so that many changes are one.
        common_lb_config=cluster_api.ClusterCommonLbConfig(update_merge_window=timedelta(0)),
        typed_extension_protocol_options={
            HTTP_OPTIONS: protobuf.Any.pack(
                upstream_http.HttpProtocolOptions(
                    explicit_http_config=upstream_http.HttpProtocolOptionsExplicitHttpConfig(
                        http2_protocol_options=core.Http2ProtocolOptions(max_outbound_frames=MAX_FRAMES)
                    )
                )
            )
        },
        load_assignment=_assignment(name, endpoints),
    )


def _readiness() -> core.HealthCheck:
    return core.HealthCheck(
        timeout=CHECK_INTERVAL,
        interval=CHECK_INTERVAL,
        no_traffic_interval=CHECK_INTERVAL,
        unhealthy_threshold=2,  # one answer that is late says little
        healthy_threshold=1,
        grpc_health_check=core.HealthCheckGrpcHealthCheck(service_name="readiness"),
    )


def _dead_left_out() -> cluster_api.OutlierDetection:
    """For a second, by one connection that fails, or five streams in a row; never more than half of them."""
    return cluster_api.OutlierDetection(
        interval=CHECK_INTERVAL,
        base_ejection_time=CHECK_INTERVAL,
        max_ejection_time=10 * CHECK_INTERVAL,
        max_ejection_percent=50,
        split_external_local_origin_errors=True,
        consecutive_local_origin_failure=1,
        enforcing_consecutive_local_origin_failure=100,
        enforcing_local_origin_success_rate=0,
        enforcing_success_rate=0,
    )


def local_cluster(name: str, at: TcpAddress) -> cluster_api.Cluster:
    """One HTTP/1.1 server."""
    return cluster_api.Cluster(
        name=name,
        type=cluster_api.ClusterDiscoveryType.STATIC,
        connect_timeout=CONNECT_TIMEOUT,
        load_assignment=_assignment(name, (at,)),
    )


def pool_cluster(pool: Pool) -> cluster_api.Cluster:
    if isinstance(pool, DiscoveredPool):
        return cluster_api.Cluster(
            name=POOL,
            type=cluster_api.ClusterDiscoveryType.ORIGINAL_DST,
            connect_timeout=CONNECT_TIMEOUT,
            lb_policy=cluster_api.ClusterLbPolicy.CLUSTER_PROVIDED,
            circuit_breakers=_limits(),
            original_dst_lb_config=cluster_api.ClusterOriginalDstLbConfig(
                metadata_key=_lb_key(wellknown.DESTINATION_KEY)
            ),
        )
    types = cluster_api.ClusterDiscoveryType
    by_name = isinstance(pool, DnsPool)
    return cluster_api.Cluster(
        name=POOL,
        type=types.STRICT_DNS if by_name else types.STATIC,
        connect_timeout=CONNECT_TIMEOUT,
        circuit_breakers=_limits(),
        load_balancing_policy=_policy("override_host", _destination_policy()),
        load_assignment=_assignment(POOL, pool.names if by_name else pool.endpoints),
    )


def _destination_policy() -> override_host.OverrideHost:
    """Metadata before the header: a client can send a header, never metadata."""
    source = override_host.OverrideHostOverrideHostSource
    return override_host.OverrideHost(
        override_host_sources=[
            source(metadata=_lb_key(wellknown.DESTINATION_KEY)),
            source(header=wellknown.DESTINATION_HEADER),
        ],
        selected_host_key=_lb_key(wellknown.SERVED_KEY),
        fallback_policy=_policy("round_robin", round_robin.RoundRobin()),
    )


def _lb_key(key: str) -> metadata_api.MetadataKey:
    return metadata_api.MetadataKey(
        key=wellknown.DESTINATION_NAMESPACE, path=[metadata_api.MetadataKeyPathSegment(key=key)]
    )


def _policy(
    name: str, config: override_host.OverrideHost | round_robin.RoundRobin
) -> cluster_api.LoadBalancingPolicy:
    extension = core.TypedExtensionConfig(
        name=f"envoy.load_balancing_policies.{name}", typed_config=protobuf.Any.pack(config)
    )
    return cluster_api.LoadBalancingPolicy(
        policies=[cluster_api.LoadBalancingPolicyPolicy(typed_extension_config=extension)]
    )


def _limits() -> cluster_api.CircuitBreakers:
    return cluster_api.CircuitBreakers(
        thresholds=[
            cluster_api.CircuitBreakersThresholds(
                max_connections=CONCURRENCY_LIMIT,
                max_pending_requests=CONCURRENCY_LIMIT,
                max_requests=CONCURRENCY_LIMIT,
                max_retries=CONCURRENCY_LIMIT,
            )
        ]
    )


def _assignment(name: str, endpoints: tuple[Address, ...]) -> endpoint_api.ClusterLoadAssignment:
    return endpoint_api.ClusterLoadAssignment(
        cluster_name=name,
        endpoints=[
            endpoint_api.LocalityLbEndpoints(
                lb_endpoints=[
                    endpoint_api.LbEndpoint(endpoint=endpoint_api.Endpoint(address=address(each)))
                    for each in endpoints
                ]
            )
        ],
    )


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
