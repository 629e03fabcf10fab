"""Envoy's ext_proc filter: how the two services of the chain are attached, and any other for comparison."""

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from extproc import wellknown
from loadtests.stack.envoy_api import core, ext_proc, hcm, mutation_rules, previous_hosts, protobuf, type_api
from loadtests.stack.envoy_clusters import Address

__all__ = ["BodyMode", "ExtProcFilter", "epp_filter", "http_filter", "tokenext_filter"]


class BodyMode(StrEnum):
    """How a filter sees a body: names of ProcessingMode.BodySendMode."""

    NONE = "NONE"
    STREAMED = "STREAMED"
    BUFFERED = "BUFFERED"
    FULL_DUPLEX_STREAMED = "FULL_DUPLEX_STREAMED"


@dataclass(frozen=True, slots=True)
class ExtProcFilter:
    """One ext_proc filter and the processes that serve it.

    Several endpoints share the load by LEAST_REQUEST: one process listens on each, since SO_REUSEPORT would
    leave processes idle. `status_on_error` is what the client gets when the processor fails and `fail_open`
    is False; a processor slower than `message_timeout_seconds` is a 504 whatever it says.
    """

    name: str
    endpoints: tuple[Address, ...]
    request_body: BodyMode = BodyMode.NONE
    response_headers: bool = False
    response_body: BodyMode = BodyMode.NONE
    response_trailers: bool = False
    fail_open: bool = False
    message_timeout_seconds: float = 5.0
    status_on_error: int | None = None
    allow_all_routing: bool = False
    forwarding_namespaces: tuple[str, ...] = ()
    receiving_namespaces: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        full_duplex = BodyMode.FULL_DUPLEX_STREAMED in (self.request_body, self.response_body)
        if full_duplex and self.fail_open:
            raise ValueError(f"{self.name}: fail_open does not work with FULL_DUPLEX_STREAMED bodies")


def tokenext_filter(
    endpoints: tuple[Address, ...],
    *,
    request_body: BodyMode = BodyMode.BUFFERED,
    fail_open: bool | None = None,
    message_timeout_seconds: float = 5.0,
    namespace: str = wellknown.RECORD_NAMESPACE,
) -> ExtProcFilter:
    """The tokenizing filter: sees the request, writes the token record, never sees the response.

    BUFFERED is the only mode in which failing open, the message timeout and the order of metadata all work.
    `fail_open` defaults to True where the mode allows it.
    """
    return ExtProcFilter(
        name="tokenext",
        endpoints=endpoints,
        request_body=request_body,
        fail_open=request_body is not BodyMode.FULL_DUPLEX_STREAMED if fail_open is None else fail_open,
        message_timeout_seconds=message_timeout_seconds,
        receiving_namespaces=(namespace,),
    )


def epp_filter(
    endpoints: tuple[Address, ...],
    *,
    request_body: BodyMode = BodyMode.NONE,
    response_body: BodyMode = BodyMode.NONE,
    fail_open: bool = False,
    message_timeout_seconds: float = 5.0,
    record_namespace: str = wellknown.RECORD_NAMESPACE,
) -> ExtProcFilter:
    """The Endpoint Picker's filter, by Endpoint Picker Protocol 004.

    Response headers and trailers are sent and the response body is not: that shows the start and the end of
    a response for one message. Envoy forwards `envoy.lb` too: the pool reports there which endpoint served.
    The picker may write the record's namespace to take the ids out, so that no further message repeats them.
    """
    return ExtProcFilter(
        name="epp",
        endpoints=endpoints,
        request_body=request_body,
        response_headers=True,
        response_body=response_body,
        response_trailers=True,
        fail_open=fail_open,
        message_timeout_seconds=message_timeout_seconds,
        status_on_error=503,
        allow_all_routing=True,
        forwarding_namespaces=(
            record_namespace,
            wellknown.SUBSET_NAMESPACE,
            wellknown.DESTINATION_NAMESPACE,
        ),
        receiving_namespaces=tuple(dict.fromkeys((wellknown.DESTINATION_NAMESPACE, record_namespace))),
    )


def http_filter(options: ExtProcFilter) -> hcm.HttpFilter:
    headers = ext_proc.ProcessingModeHeaderSendMode
    bodies = ext_proc.ProcessingModeBodySendMode
    full_duplex = (
        options.request_body is BodyMode.FULL_DUPLEX_STREAMED,
        options.response_body is BodyMode.FULL_DUPLEX_STREAMED,
    )
    mode = ext_proc.ProcessingMode(
        request_header_mode=headers.SEND,
        request_body_mode=bodies[options.request_body.value],
        # Envoy refuses full duplex bodies without their trailers.
        request_trailer_mode=headers.SEND if full_duplex[0] else headers.SKIP,
        response_header_mode=headers.SEND if options.response_headers else headers.SKIP,
        response_body_mode=bodies[options.response_body.value],
        response_trailer_mode=headers.SEND if options.response_trailers or full_duplex[1] else headers.SKIP,
    )
    processor = ext_proc.ExternalProcessor(
        grpc_service=core.GrpcService(
            envoy_grpc=core.GrpcServiceEnvoyGrpc(cluster_name=options.name),
            timeout=timedelta(0),
            retry_policy=_retries(),
        ),
        processing_mode=mode,
        failure_mode_allow=options.fail_open,
        message_timeout=timedelta(seconds=options.message_timeout_seconds),
        stat_prefix=options.name,
        # Metadata and headers that pick an endpoint do not change the route.
        route_cache_action=ext_proc.ExternalProcessorRouteCacheAction.RETAIN,
        mutation_rules=mutation_rules.HeaderMutationRules(allow_all_routing=True)
        if options.allow_all_routing
        else None,
        metadata_options=ext_proc.MetadataOptions(
            forwarding_namespaces=_namespaces(options.forwarding_namespaces),
            receiving_namespaces=_namespaces(options.receiving_namespaces),
        ),
        status_on_error=type_api.HttpStatus(code=type_api.StatusCode(options.status_on_error))
        if options.status_on_error
        else None,
        # Full duplex would otherwise turn every body into a chunked one.
        allow_content_length_header=any(full_duplex),
    )
    # Unique names: typed_per_filter_config is keyed by them.
    return hcm.HttpFilter(
        name=f"envoy.filters.http.ext_proc.{options.name}", typed_config=protobuf.Any.pack(processor)
    )


def _retries() -> core.RetryPolicy:
    """A stream to which its process has not said anything yet is opened anew, to another process.

    Only what fits into Envoy's 64 KiB for it, which a request of some 12,000 ids in its metadata does not: so
    a process that ends is to be left out before (see `envoy_clusters.grpc_cluster`).
    """
    return core.RetryPolicy(
        retry_on="connect-failure,refused-stream,reset,cancelled,unavailable",
        num_retries=2,
        retry_host_predicate=[
            core.RetryPolicyRetryHostPredicate(
                name="envoy.retry_host_predicates.previous_hosts",
                typed_config=protobuf.Any.pack(previous_hosts.PreviousHostsPredicate()),
            )
        ],
        # Of two processes the dead one is the less loaded: it is drawn three times out of four.
        host_selection_retry_max_attempts=30,
        retry_back_off=core.BackoffStrategy(
            base_interval=timedelta(milliseconds=5), max_interval=timedelta(milliseconds=50)
        ),
    )


def _namespaces(names: tuple[str, ...]) -> ext_proc.MetadataOptionsMetadataNamespaces | None:
    return ext_proc.MetadataOptionsMetadataNamespaces(untyped=list(names)) if names else None
