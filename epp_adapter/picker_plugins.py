"""The plugin types of EndpointPickerConfig that this adapter knows, and the parameters of each.

Names and defaults are the reference's (llm-d-router). Keys are camelCase in YAML; unknown ones are refused.
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

from epp_adapter.routing.approx_prefix import DEFAULT_BLOCKS_PER_ENDPOINT
from epp_adapter.routing.filters import Operator
from epp_adapter.routing.scheduler import DEFAULT_MAX_PREFIX_TOKENS

__all__ = [
    "PLUGIN_TYPES",
    "Anything",
    "ApproxPrefixParameters",
    "ByLabelParameters",
    "NoParameters",
    "PickerParameters",
    "Plugin",
    "PluginType",
    "PrecisePrefixParameters",
    "PrefixScorerParameters",
    "Role",
    "SelectorParameters",
    "SessionParameters",
    "UtilizationParameters",
    "WeightedPlugin",
    "seconds",
]

Positive = Annotated[int, Meta(gt=0)]
Fraction = Annotated[float, Meta(ge=0, le=1)]

# Go's time.Duration, as Kubernetes writes it: 200ms, 5s, 1m30s.
_DURATION: Final = re.compile(r"(?:(\d+(?:\.\d+)?)(ms|us|ns|h|m|s))")
_UNIT_SECONDS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9}

# How many endpoints a pick names where the configuration does not say: the choice and two fallbacks.
DEFAULT_ENDPOINTS: Final = 3


def seconds(duration: str) -> float:
    """Read a Go duration. Raises ValueError."""
    parts = _DURATION.findall(duration)
    if not parts or "".join(number + unit for number, unit in parts) != duration:
        raise ValueError("is no duration like 200ms, 5s or 1m30s")
    return sum(float(number) * _UNIT_SECONDS[unit] for number, unit in parts)


class _Parameters(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class NoParameters(_Parameters, frozen=True):
    """The plugin has none."""


class Anything(msgspec.Struct, frozen=True):
    """The plugin does nothing here, so its parameters are not looked at."""


class PickerParameters(_Parameters, frozen=True):
    """The reference names one endpoint by default; we name fallbacks too."""

    max_num_of_endpoints: Positive = DEFAULT_ENDPOINTS


class ByLabelParameters(_Parameters, frozen=True):
    label: Annotated[str, Meta(min_length=1)]
    valid_values: tuple[str, ...] = ()
    allows_no_label: bool = False


class SelectorRequirement(_Parameters, frozen=True):
    key: str
    operator: Operator
    values: tuple[str, ...] = ()


class SelectorParameters(_Parameters, frozen=True):
    """Kubernetes' meta/v1 LabelSelector; empty selects every endpoint."""

    match_labels: dict[str, str] = {}
    match_expressions: tuple[SelectorRequirement, ...] = ()


class UtilizationParameters(_Parameters, frozen=True):
    queue_depth_threshold: Positive = 5
    kv_cache_util_threshold: Annotated[float, Meta(gt=0, le=1)] = 0.8
    metrics_staleness_threshold: str = "200ms"
    headroom: Annotated[float, Meta(ge=0)] = 0.0
    in_flight_load_producer_name: str = ""  # there is one, and it is always on


class PrefixScorerParameters(_Parameters, frozen=True):
    """`prefix_match_info_producer_name` names the producer plugin; empty: exact where KV events are followed.

    The rest are parameters that older releases keep here and newer ones in approx-prefix-cache-producer.
    """

    prefix_length_weight: Fraction = 0.0
    max_model_len: Positive = 8192
    prefix_match_info_producer_name: str = ""
    auto_tune: bool | None = None
    block_size_tokens: Positive | None = None
    max_prefix_blocks_to_match: int | None = None
    max_prefix_tokens_to_match: int | None = None
    lru_capacity_per_server: Positive | None = msgspec.field(default=None, name="lruCapacityPerServer")


class ApproxPrefixParameters(_Parameters, frozen=True):
    """`max_prefix_tokens_to_match` 0 falls back to the deprecated limit in blocks; both 0: no limit."""

    auto_tune: bool = True
    block_size_tokens: Positive | None = None
    max_prefix_blocks_to_match: Annotated[int, Meta(ge=0)] = 2048
    max_prefix_tokens_to_match: Annotated[int, Meta(ge=0)] = DEFAULT_MAX_PREFIX_TOKENS
    lru_capacity_per_server: Positive = msgspec.field(
        default=DEFAULT_BLOCKS_PER_ENDPOINT, name="lruCapacityPerServer"
    )


class TokenProcessorConfig(_Parameters, frozen=True):
    """`hash_seed` is the engines' PYTHONHASHSEED; it means nothing here, for their hashes are not used."""

    block_size: Positive | None = None
    block_size_tokens: Positive | None = None
    hash_seed: str | int = ""


class PodDiscoveryConfig(_Parameters, frozen=True):
    socket_port: Annotated[int, Meta(gt=0, le=65535)] = 5557
    pod_label_selector: str = ""
    pod_namespace: str = ""


class KvEventsConfig(_Parameters, frozen=True):
    """`zmq_endpoint` is bound here, and model servers connect to it; `discover_pods`: we connect to them."""

    zmq_endpoint: str = ""
    topic_filter: str = ""
    concurrency: int = 0  # one event loop reads all
    discover_pods: bool = False
    pod_discovery_config: PodDiscoveryConfig = PodDiscoveryConfig()


class PrecisePrefixParameters(_Parameters, frozen=True):
    """`indexer_config` and `speculative_indexing` size and tune another index; they mean nothing here."""

    token_processor_config: TokenProcessorConfig = TokenProcessorConfig()
    kv_events_config: KvEventsConfig | None = None
    indexer_config: dict[str, Any] = {}
    speculative_indexing: bool = False
    speculative_ttl: str = ""


class SessionParameters(_Parameters, frozen=True):
    algorithm: Literal["encoded_endpoint_header", "session_id_header"] = "encoded_endpoint_header"
    header_name: Annotated[str, Meta(pattern=r"^[A-Za-z0-9-]+$")] = "x-session-token"
    profile_name: str = ""
    eviction_ttl_seconds: Annotated[float, Meta(gt=0)] = 600.0
    eviction_sweep_seconds: Annotated[float, Meta(gt=0)] = 30.0  # expired sessions go at the next request
    miss_threshold: Positive = 3


class Role(Enum):
    """What a plugin is to a profile. ACCEPTED ones do nothing here: it is built in, or not needed."""

    FILTER = "filter"
    SCORER = "scorer"
    PICKER = "picker"
    PROFILE_HANDLER = "profile handler"
    PREFIX_PRODUCER = "prefix producer"
    SATURATION_DETECTOR = "saturation detector"
    ACCEPTED = "accepted"


@dataclass(frozen=True, slots=True)
class PluginType:
    role: Role
    parameters: type[msgspec.Struct]


_ACCEPTED: Final = PluginType(Role.ACCEPTED, Anything)
_PLAIN_SCORER: Final = PluginType(Role.SCORER, NoParameters)
_ROLE_FILTER: Final = PluginType(Role.FILTER, NoParameters)
_SELECTOR: Final = PluginType(Role.FILTER, SelectorParameters)
_PREFIX_SCORER: Final = PluginType(Role.SCORER, PrefixScorerParameters)
_PICKER: Final = PluginType(Role.PICKER, PickerParameters)

PLUGIN_TYPES: Final[dict[str, PluginType]] = {
    "by-label": PluginType(Role.FILTER, ByLabelParameters),
    "label-selector-filter": _SELECTOR,
    "by-label-selector": _SELECTOR,  # its older name
    "decode-filter": _ROLE_FILTER,
    "prefill-filter": _ROLE_FILTER,
    "encode-filter": _ROLE_FILTER,
    "header-based-testing-filter": _ROLE_FILTER,
    "utilization-filter": PluginType(Role.FILTER, UtilizationParameters),
    "utilization-detector": PluginType(Role.SATURATION_DETECTOR, UtilizationParameters),
    "queue-scorer": _PLAIN_SCORER,
    "kv-cache-utilization-scorer": _PLAIN_SCORER,
    "running-requests-size-scorer": _PLAIN_SCORER,
    "active-request-scorer": _PLAIN_SCORER,
    "lora-affinity-scorer": _PLAIN_SCORER,
    "session-affinity-scorer": PluginType(Role.SCORER, SessionParameters),
    "prefix-cache-scorer": _PREFIX_SCORER,
    "precise-prefix-cache-scorer": PluginType(Role.SCORER, PrecisePrefixParameters),
    "max-score-picker": _PICKER,
    "random-picker": _PICKER,
    "weighted-random-picker": _PICKER,
    "single-profile-handler": PluginType(Role.PROFILE_HANDLER, NoParameters),
    "approx-prefix-cache-producer": PluginType(Role.PREFIX_PRODUCER, ApproxPrefixParameters),
    "precise-prefix-cache-producer": PluginType(Role.PREFIX_PRODUCER, PrecisePrefixParameters),
    # The token ids come from tokenext; metrics are scraped and requests are read whatever is said here.
    "token-producer": _ACCEPTED,
    "tokenizer": _ACCEPTED,
    "inflight-load-producer": _ACCEPTED,
    "metrics-data-source": _ACCEPTED,
    "core-metrics-extractor": _ACCEPTED,
    "endpoint-notification-source": _ACCEPTED,
    "openai-parser": _ACCEPTED,
    "anthropic-parser": _ACCEPTED,
    "vllmhttp-parser": _ACCEPTED,
    "passthrough-parser": _ACCEPTED,
}


@dataclass(frozen=True, slots=True)
class Plugin:
    """One entry of `plugins`. `parameters` is the Struct that PLUGIN_TYPES names for `type`."""

    name: str
    type: str
    parameters: msgspec.Struct

    @property
    def role(self) -> Role:
        return PLUGIN_TYPES[self.type].role


@dataclass(frozen=True, slots=True)
class WeightedPlugin:
    plugin: Plugin
    weight: float = 1.0
