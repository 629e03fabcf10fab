"""The settings of the strategies that NVIDIA Dynamo's routers serve."""

import re
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from extproc.settings_file import SettingsError

__all__ = [
    "DynamoSelectionSettings",
    "DynamoSettings",
    "KvEventsSettings",
    "RouterSettings",
    "SelectionOverrides",
    "check_dynamo",
    "check_selection",
]

_Positive = Annotated[int, Meta(gt=0)]
_Port = Annotated[int, Meta(gt=0, le=65535)]
_Seconds = Annotated[float, Meta(gt=0)]
_NotNegative = Annotated[float, Meta(ge=0)]

_ENDPOINT: Final = re.compile(r"(dyn://)?[\w-]+\.[\w-]+\.[\w-]+")


class RouterSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Arguments of Dynamo 1.6's KvRouterConfig, by their own names; what is left out stays Dynamo's default.

    Not here: what needs a report of each generated token, which an Endpoint Picker does not see
    (router_track_output_blocks), and Dynamo's own disaggregation, which `prefill_endpoint` replaces.
    """

    overlap_score_credit: _NotNegative | UnsetType = UNSET
    overlap_score_credit_decay: _NotNegative | UnsetType = UNSET
    prefill_load_scale: _NotNegative | UnsetType = UNSET
    decode_active_request_weight: _NotNegative | UnsetType = UNSET
    host_cache_hit_weight: _NotNegative | UnsetType = UNSET
    disk_cache_hit_weight: _NotNegative | UnsetType = UNSET
    router_temperature: _NotNegative | UnsetType = UNSET
    use_kv_events: bool | UnsetType = UNSET
    router_replica_sync: bool | UnsetType = UNSET
    router_track_active_blocks: bool | UnsetType = UNSET
    router_assume_kv_reuse: bool | UnsetType = UNSET
    router_track_prefill_tokens: bool | UnsetType = UNSET
    router_ttl_secs: _Seconds | UnsetType = UNSET
    router_predicted_ttl_secs: _Seconds | UnsetType = UNSET
    router_approximate_cache_policy: Literal["ttl", "lru"] | UnsetType = UNSET
    router_queue_threshold: _NotNegative | UnsetType = UNSET
    router_queue_policy: Literal["fcfs", "wspt"] | UnsetType = UNSET
    router_policy_config: str | UnsetType = UNSET
    router_event_threads: _Positive | UnsetType = UNSET
    use_remote_indexer: bool | UnsetType = UNSET

    def arguments(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}


class DynamoSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="dynamo"):
    """`endpoint` is the workers' "namespace.component.endpoint", and `block_size` their own KV block size.

    `prefill_endpoint` makes the graph a disaggregated one: its workers compute prompts, those of `endpoint`
    generate. `policy_classes`: the lowest priority of each class of the router's queue. The header of
    `cache_namespace_header` names the tenant whose cached blocks are looked for.
    """

    endpoint: str
    block_size: _Positive
    prefill_endpoint: str | None = None
    discovery: Literal["file", "etcd", "kubernetes", "mem"] = "etcd"
    request_plane: Literal["tcp", "nats"] = "tcp"
    event_plane: Literal["nats", "zmq"] = "nats"
    deadline_ms: _Positive = 200
    connect_seconds: _Positive = 10
    router: RouterSettings = RouterSettings()
    policy_classes: dict[str, int] = {}
    cache_namespace_header: str = "x-tenant-id"


class SelectionOverrides(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What Dynamo's SelectionService takes with each request, by its own names."""

    overlap_score_credit: _NotNegative | UnsetType = UNSET
    prefill_load_scale: _NotNegative | UnsetType = UNSET
    router_temperature: _NotNegative | UnsetType = UNSET

    def arguments(self) -> dict[str, Any]:
        """Those that are set."""
        return {name: value for name, value in msgspec.structs.asdict(self).items() if value is not UNSET}


class KvEventsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where each worker publishes vLLM's KV events: `port` on its ip, one more for each data-parallel rank.

    `port_label` names a label of the endpoint that holds a port of its own. `replay_offset` is how far above
    it the worker answers for events that were missed.
    """

    port: _Port = 5557
    port_label: str | None = None
    replay_offset: _Positive | None = None


class DynamoSelectionSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="dynamo-selection"
):
    """Dynamo's router core without its runtime, over plain vLLM workers; `block_size` is their own.

    `replica_sync_port` and `replica_sync_peers` ("tcp://ip:port") let adapters see each other's bookings.
    """

    block_size: _Positive
    kv_events: KvEventsSettings = KvEventsSettings()
    data_parallel_size: Annotated[int, Meta(gt=0, le=1024)] = 1
    deadline_ms: _Positive = 200
    indexer_threads: _Positive = 4
    replica_sync_port: _Port | None = None
    replica_sync_peers: tuple[Annotated[str, Meta(pattern=r"^tcp://.+:\d{1,5}$")], ...] = ()
    poll_seconds: _Seconds = 0.2
    overrides: SelectionOverrides = SelectionOverrides()
    cache_namespace_header: str = "x-tenant-id"


def check_dynamo(settings: DynamoSettings, source: str, key: str) -> None:
    """Raises SettingsError for what no type can say."""
    for name, endpoint in (("endpoint", settings.endpoint), ("prefill_endpoint", settings.prefill_endpoint)):
        if endpoint is not None and not _ENDPOINT.fullmatch(endpoint):
            raise SettingsError(source, "is not namespace.component.endpoint", f"{key}.{name}")
    if settings.prefill_endpoint == settings.endpoint:
        raise SettingsError(source, "is the endpoint that generates", f"{key}.prefill_endpoint")
    router = settings.router
    if router.router_predicted_ttl_secs is not UNSET and router.use_kv_events is False:
        problem = "needs use_kv_events: without events router_ttl_secs is the time to set"
        raise SettingsError(source, problem, f"{key}.router.router_predicted_ttl_secs")
    if router.router_approximate_cache_policy == "lru" and router.use_kv_events is not False:
        problem = "lru needs use_kv_events: false"
        raise SettingsError(source, problem, f"{key}.router.router_approximate_cache_policy")


def check_selection(settings: DynamoSelectionSettings, source: str, key: str) -> None:
    """Raises SettingsError for what no type can say."""
    if settings.kv_events.replay_offset is not None and settings.data_parallel_size > 1:
        problem = "Dynamo asks one replay address per worker, so it needs data_parallel_size 1"
        raise SettingsError(source, problem, f"{key}.kv_events.replay_offset")
    if settings.replica_sync_peers and settings.replica_sync_port is None:
        raise SettingsError(source, "needs replica_sync_port", f"{key}.replica_sync_peers")
