"""Envoy's bootstrap as a typed function of a frozen value.

`bootstrap(options)` builds envoy-data-plane messages: a wrong field name or type fails here, not in Envoy;
`render` gives the JSON that Envoy (and a ConfigMap) takes; `envoy_binary.validate` has Envoy itself check it.
This module knows nothing of who starts Envoy: the demo's stack, the benchmarks and the Helm chart share it.

Why the filters stand as they do is measured in docs/adr/ and summarised in the two `*_filter` functions.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final

from extproc import wellknown
from loadtests.stack import envoy_clusters, envoy_edge, envoy_ext_proc
from loadtests.stack.envoy_api import (
    accesslog,
    bootstrap_api,
    core,
    file_log,
    hcm,
    listener_api,
    previous_hosts,
    protobuf,
    route_api,
    router,
)
from loadtests.stack.envoy_clusters import (
    Address,
    DiscoveredPool,
    DnsPool,
    Pool,
    StaticPool,
    TcpAddress,
    UnixAddress,
)
from loadtests.stack.envoy_edge import ListenerTls
from loadtests.stack.envoy_ext_proc import BodyMode, ExtProcFilter, epp_filter, tokenext_filter

__all__ = [
    "AccessLog",
    "Address",
    "BodyMode",
    "DiscoveredPool",
    "DnsPool",
    "EnvoyOptions",
    "ExtProcFilter",
    "ListenerTls",
    "StaticPool",
    "TcpAddress",
    "UnixAddress",
    "access_log_fields",
    "bootstrap",
    "epp_filter",
    "render",
    "tokenext_filter",
]

MEBIBYTE: Final = 1024 * 1024
# What bodies took stays with Envoy's allocator for ever otherwise: 900 MB after some prompts of a million
# tokens at once, of which 11 MB were in use. To give back so much a second costs no CPU that could be
# measured; but an Envoy that ends takes up to a second longer, whatever the interval.
RELEASED_BYTES: Final = 64 * MEBIBYTE


def access_log_fields(record_namespace: str = wellknown.RECORD_NAMESPACE) -> dict[str, str]:
    """One JSON object per exchange, numbers as numbers. A client chooses nothing in it but the request id."""
    record = f"{record_namespace}:{wellknown.RECORD_KEY}"
    destination = f"{wellknown.DESTINATION_NAMESPACE}:{wellknown.DESTINATION_KEY}"
    return {
        "request_id": "%REQ(X-REQUEST-ID)%",
        "method": "%REQ(:METHOD)%",
        "status": "%RESPONSE_CODE%",
        "details": "%RESPONSE_CODE_DETAILS%",
        "flags": "%RESPONSE_FLAGS%",
        "upstream": "%UPSTREAM_HOST%",
        "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
        "destination": f"%DYNAMIC_METADATA({destination})%",
        "token_count": f"%DYNAMIC_METADATA({record}:tokenCount)%",
        "engine_exact": f"%DYNAMIC_METADATA({record}:engineExact)%",
        "duration_ms": "%DURATION%",
        "bytes_received": "%BYTES_RECEIVED%",
        "bytes_sent": "%BYTES_SENT%",
    }


@dataclass(frozen=True, slots=True)
class AccessLog:
    """JSON lines in the file `path`; `fields` are name -> Envoy command operator."""

    path: str
    fields: Mapping[str, str] = field(default_factory=access_log_fields)


@dataclass(frozen=True, slots=True)
class EnvoyOptions:
    """Everything the bootstrap depends on. Filters run in the order given; none is plain Envoy.

    `buffer_limit_bytes` bounds a body that a filter buffers (above it the client gets 413).
    `stream_idle_seconds` bounds the silence of an exchange, so it must exceed the slowest prefill. `probes`
    is where others may ask for /ready and metrics, if `admin` is not for them.
    """

    listen: TcpAddress
    pool: Pool
    filters: tuple[ExtProcFilter, ...] = ()
    tls: ListenerTls | None = None
    admin: TcpAddress | None = None
    probes: TcpAddress | None = None
    access_log: AccessLog | None = None
    buffer_limit_bytes: int = 32 * MEBIBYTE
    stream_idle_seconds: float = 900.0
    retries: int = 2
    stat_prefix: str = "ingress"

    def __post_init__(self) -> None:
        names = [each.name for each in self.filters]
        if len(names) != len(set(names)):
            raise ValueError(f"filter names must be unique: {', '.join(names)}")
        if self.probes and not self.admin:
            raise ValueError("probes are answered by the admin interface, so they need one")


def bootstrap(options: EnvoyOptions) -> bootstrap_api.Bootstrap:
    return bootstrap_api.Bootstrap(
        # Envoy wants a name where it reads secrets, even from a file.
        node=core.Node(id=options.stat_prefix, cluster=options.stat_prefix) if options.tls else None,
        admin=bootstrap_api.Admin(address=envoy_clusters.address(options.admin)) if options.admin else None,
        memory_allocator_manager=bootstrap_api.MemoryAllocatorManager(
            bytes_to_release=RELEASED_BYTES, memory_release_interval=timedelta(seconds=1)
        ),
        static_resources=bootstrap_api.BootstrapStaticResources(
            listeners=[
                _listener(options),
                *([envoy_edge.probe_listener(options.probes)] if options.probes else []),
            ],
            clusters=[
                *(envoy_clusters.grpc_cluster(each.name, each.endpoints) for each in options.filters),
                envoy_clusters.pool_cluster(options.pool),
                *(
                    [envoy_clusters.local_cluster(envoy_edge.ADMIN, options.admin)]
                    if options.probes and options.admin
                    else []
                ),
            ],
        ),
    )


def render(options: EnvoyOptions) -> str:
    """The bootstrap as JSON, which Envoy reads from a file named *.json."""
    return json.dumps(bootstrap(options).to_dict(), indent=2) + "\n"


def _listener(options: EnvoyOptions) -> listener_api.Listener:
    manager = hcm.HttpConnectionManager(
        codec_type=hcm.HttpConnectionManagerCodecType.AUTO,
        stat_prefix=options.stat_prefix,
        use_remote_address=True,
        # A caller's request id joins its logs with ours.
        preserve_external_request_id=True,
        always_set_request_id_in_response=True,
        stream_idle_timeout=timedelta(seconds=options.stream_idle_seconds),
        access_log=[_access_log(options.access_log)] if options.access_log else [],
        route_config=_routes(options),
        http_filters=[
            *(envoy_ext_proc.http_filter(each) for each in options.filters),
            hcm.HttpFilter(name="envoy.filters.http.router", typed_config=protobuf.Any.pack(router.Router())),
        ],
    )
    return listener_api.Listener(
        name=options.stat_prefix,
        address=envoy_clusters.address(options.listen),
        per_connection_buffer_limit_bytes=options.buffer_limit_bytes,
        filter_chains=[
            listener_api.FilterChain(
                filters=[
                    listener_api.Filter(
                        name="envoy.filters.network.http_connection_manager",
                        typed_config=protobuf.Any.pack(manager),
                    )
                ],
                transport_socket=envoy_edge.transport_socket(options.tls) if options.tls else None,
            )
        ],
    )


def _routes(options: EnvoyOptions) -> route_api.RouteConfiguration:
    """One route to the pool. No time limit: generation takes as long as it takes, silence is bounded above.

    A retry happens only where the endpoint cannot have seen the request, and goes to the next endpoint of the
    destination list (override_host walks the list, one per attempt).
    """
    retry = route_api.RetryPolicy(
        retry_on="connect-failure,refused-stream",
        num_retries=options.retries,
        # Beyond the list, round robin must not come back to the endpoint that just failed.
        retry_host_predicate=[
            route_api.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=protobuf.Any.pack(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        host_selection_retry_max_attempts=5,
        retry_back_off=route_api.RetryPolicyRetryBackOff(
            base_interval=timedelta(milliseconds=5), max_interval=timedelta(milliseconds=50)
        ),
    )
    return route_api.RouteConfiguration(
        name=options.stat_prefix,
        virtual_hosts=[
            route_api.VirtualHost(
                name="all",
                domains=["*"],
                routes=[
                    route_api.Route(
                        match=route_api.RouteMatch(prefix="/"),
                        route=route_api.RouteAction(
                            cluster=envoy_clusters.POOL,
                            timeout=timedelta(0),
                            retry_policy=retry if options.retries else None,
                        ),
                    )
                ],
            )
        ],
    )


def _access_log(log: AccessLog) -> accesslog.AccessLog:
    line_format = core.SubstitutionFormatString(
        json_format=protobuf.Struct.from_dict(dict(log.fields)), omit_empty_values=True
    )
    return accesslog.AccessLog(
        name="envoy.access_loggers.file",
        typed_config=protobuf.Any.pack(file_log.FileAccessLog(path=log.path, log_format=line_format)),
    )
