"""From settings and EndpointPickerConfig to a strategy `internal`, for __main__."""

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any, Final

from epp_adapter.endpoint_picker_config import (
    DEFAULT_CONFIG,
    PickerConfig,
    parse_picker_config,
    utilization_limits,
)
from epp_adapter.endpoints import EndpointSource
from epp_adapter.kv_events import KvEventObserver, WorkerRoll
from epp_adapter.picker_plugins import (
    ByLabelParameters,
    PickerParameters,
    Plugin,
    PrefixScorerParameters,
    SelectorParameters,
    SessionParameters,
)
from epp_adapter.prefix_config import PrefixConfig
from epp_adapter.routing import plugins
from epp_adapter.routing.approx_prefix import ApproximatePrefixes
from epp_adapter.routing.filters import (
    DECODE_ROLES,
    ENCODE_ROLES,
    PREFILL_ROLES,
    ROLE_LABEL,
    LabelRequirement,
    Operator,
)
from epp_adapter.routing.load import NO_LOADS, LoadSource
from epp_adapter.routing.pickers import MaxScorePicker, Picker, RandomPicker, WeightedRandomPicker
from epp_adapter.routing.prefix import ExactPrefixes, PrefixKnowledge, by_address, by_dynamo_instance
from epp_adapter.routing.prefix_index import PrefixIndex
from epp_adapter.routing.profile import Filter, Profile, Scorer, SingleProfileHandler, WeightedScorer
from epp_adapter.routing.saturation import UtilizationLimits
from epp_adapter.routing.scheduler import InternalStrategy, PrefixOptions
from epp_adapter.routing.sessions import SessionTable
from epp_adapter.settings import DynamoEventsSettings, InternalSettings, VllmEventsSettings
from extproc.settings_file import SettingsError

__all__ = ["InternalParts", "build_internal", "event_follower"]

_DEFAULT_BLOCK_SIZE: Final = 16  # vLLM's and the reference's
_UNLIMITED_TOKENS: Final = 2**31

_ROLES: Final = {
    "decode-filter": DECODE_ROLES,
    "prefill-filter": PREFILL_ROLES,
    "encode-filter": ENCODE_ROLES,
}
_PLAIN_SCORERS: Final = {
    "queue-scorer": plugins.QUEUE,
    "kv-cache-utilization-scorer": plugins.KV_CACHE_UTILIZATION,
    "running-requests-size-scorer": plugins.RUNNING_REQUESTS,
    "active-request-scorer": plugins.ACTIVE_REQUESTS,
    "lora-affinity-scorer": plugins.LORA_AFFINITY,
}


@dataclass(frozen=True, slots=True)
class InternalParts:
    """A strategy, and what has to be kept fed with it: the index of whom `events` tells; None: nothing."""

    strategy: InternalStrategy
    block_size: int
    prefix_blocks: Callable[[], int]
    index: PrefixIndex | None = None
    events: DynamoEventsSettings | VllmEventsSettings | None = None


def build_internal(
    name: str,
    settings: InternalSettings,
    folder: Path,
    *,
    clock: Callable[[], float],
    random: Random,
    loads: LoadSource | None = None,
    scrape_seconds: float = 0.0,
) -> InternalParts:
    """Read the configuration (relative to `folder`) and put the strategy together. Raises SettingsError.

    `loads` None: no metrics are scraped, so no request is shed for a full pool. `scrape_seconds` is how far
    apart readings are: the detector's staleness is at least three of that, or the wait for the next reading
    would count as a full endpoint.
    """
    config, source = _read_config(settings, folder)
    events = settings.kv_events or _events_of(config.prefix, source)
    profile = Profile(
        config.profile,
        filters=tuple(_filter(plugin, source) for plugin in config.filters),
        scorers=tuple(WeightedScorer(_scorer(use.plugin), use.weight) for use in config.scorers),
        picker=_picker(config.picker, random),
    )
    prefixes, index, count = _prefixes(config.prefix, settings, events, source)
    strategy = InternalStrategy(
        name,
        SingleProfileHandler(profile),
        clock=clock,
        loads=loads or NO_LOADS,
        prefixes=prefixes,
        limits=None if loads is None else _patient(config.limits, scrape_seconds),
    )
    size = prefixes.block_size if prefixes else _DEFAULT_BLOCK_SIZE
    return InternalParts(strategy, size, count, index, events if index else None)


def _patient(limits: UtilizationLimits, scrape_seconds: float) -> UtilizationLimits:
    return replace(limits, staleness_seconds=max(limits.staleness_seconds, 3 * scrape_seconds))


def _read_config(settings: InternalSettings, folder: Path) -> tuple[PickerConfig, str]:
    if settings.config is None:
        source = "the default EndpointPickerConfig"
        return parse_picker_config(DEFAULT_CONFIG, source=source), source
    path = folder / settings.config
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from None
    return parse_picker_config(text, source=str(path)), str(path)


def _events_of(prefix: PrefixConfig | None, source: str) -> VllmEventsSettings | None:
    """KV events where EndpointPickerConfig says them itself, as precise-prefix-cache-producer has it."""
    if prefix is None or prefix.events is None:
        return None
    events = prefix.events
    if events.discover_pods:
        return VllmEventsSettings(port=events.pod_discovery_config.socket_port, topic=events.topic_filter)
    if not events.zmq_endpoint:
        raise SettingsError(source, "needs zmqEndpoint, or discoverPods: true", "kvEventsConfig")
    return VllmEventsSettings(bind=events.zmq_endpoint, topic=events.topic_filter)


def _prefixes(
    prefix: PrefixConfig | None,
    settings: InternalSettings,
    events: DynamoEventsSettings | VllmEventsSettings | None,
    source: str,
) -> tuple[PrefixOptions | None, PrefixIndex | None, Callable[[], int]]:
    if prefix is None:
        return None, None, lambda: 0
    if settings.block_size and prefix.block_size and settings.block_size != prefix.block_size:
        problem = f"block size {prefix.block_size} is not the block_size of the settings"
        raise SettingsError(source, problem + f" ({settings.block_size})")
    if prefix.exact and events is None:
        problem = "asks for exact prefixes, so `kv_events` must be set with the strategy (or kvEventsConfig)"
        raise SettingsError(source, problem)
    knowledge: PrefixKnowledge
    if events is not None and prefix.exact is not False:
        index = PrefixIndex(settings.max_blocks)
        dynamo = isinstance(events, DynamoEventsSettings)
        knowledge = ExactPrefixes(index, by_dynamo_instance if dynamo else by_address)
        count: Callable[[], int] = lambda: index.blocks  # noqa: E731  # two counts, one signature
    else:
        index = None
        approximate = ApproximatePrefixes(prefix.blocks_per_endpoint, auto_tune=prefix.auto_tune)
        knowledge, count = approximate, lambda: approximate.blocks
    options = PrefixOptions(
        knowledge,
        block_size=settings.block_size or prefix.block_size or _DEFAULT_BLOCK_SIZE,
        max_tokens=prefix.max_tokens or _UNLIMITED_TOKENS,
    )
    return options, index, count


def _filter(plugin: Plugin, source: str) -> Filter:
    parameters = plugin.parameters
    if plugin.type in _ROLES:
        # Only decode takes endpoints without the label: a pool without roles is all decode.
        return plugins.LabelFilter(ROLE_LABEL, _ROLES[plugin.type], plugin.type == "decode-filter")
    if isinstance(parameters, ByLabelParameters):
        return plugins.LabelFilter(
            parameters.label, frozenset(parameters.valid_values), parameters.allows_no_label
        )
    if isinstance(parameters, SelectorParameters):
        return plugins.SelectorFilter(_requirements(parameters))
    if plugin.type == "header-based-testing-filter":
        return plugins.TestHeaderFilter()
    return plugins.UtilizationFilter(utilization_limits(plugin, source))


def _requirements(selector: SelectorParameters) -> tuple[LabelRequirement, ...]:
    labels = tuple(
        LabelRequirement(key, Operator.IN, frozenset({value})) for key, value in selector.match_labels.items()
    )
    return labels + tuple(
        LabelRequirement(each.key, each.operator, frozenset(each.values))
        for each in selector.match_expressions
    )


def _scorer(plugin: Plugin) -> Scorer:
    parameters = plugin.parameters
    if plugin.type in _PLAIN_SCORERS:
        return _PLAIN_SCORERS[plugin.type]
    if isinstance(parameters, SessionParameters):
        header = parameters.header_name.lower()
        if parameters.algorithm == "encoded_endpoint_header":
            return plugins.SessionTokenScorer(header)
        table = SessionTable(parameters.eviction_ttl_seconds, parameters.miss_threshold)
        return plugins.SessionIdScorer(header, table)
    if isinstance(parameters, PrefixScorerParameters):
        return plugins.PrefixScorer(parameters.prefix_length_weight, parameters.max_model_len)
    return plugins.PrefixScorer()


def _picker(plugin: Plugin, random: Random) -> Picker:
    assert isinstance(plugin.parameters, PickerParameters)
    count = plugin.parameters.max_num_of_endpoints
    if plugin.type == "random-picker":
        return RandomPicker(count, random)
    if plugin.type == "weighted-random-picker":
        return WeightedRandomPicker(count, random)
    return MaxScorePicker(count)


def event_follower(
    parts: InternalParts,
    endpoints: EndpointSource,
    observe: KvEventObserver,
    *,
    nats_server: str,
    source: str,
) -> Callable[[], Coroutine[Any, Any, Any]] | None:
    """What has to run for as long as the strategy is used; None: it follows no events.

    The clients are an optional extra, so they are imported here. Raises SettingsError where they are missing.
    """
    index, events = parts.index, parts.events
    if index is None or events is None:
        return None
    try:
        if isinstance(events, DynamoEventsSettings):
            from epp_adapter import kv_events_dynamo  # noqa: PLC0415  # needs the extra `dynamo`

            nats = kv_events_dynamo.NatsOptions(events.nats or nats_server, events.endpoint)
            stream = kv_events_dynamo.DynamoEventStream(index, observe)
            roll = WorkerRoll(index, observe)
            return lambda: kv_events_dynamo.follow(nats, stream, roll, lambda: _instances(endpoints))
        from epp_adapter import kv_events_zmq  # noqa: PLC0415  # likewise

        options = kv_events_zmq.VllmOptions(
            block_size=parts.block_size,
            port=events.port,
            replay_port=events.replay_port,
            data_parallel_size=events.data_parallel_size,
            bind=events.bind,
            topic=events.topic,
        )
        return lambda: kv_events_zmq.follow(options, index, endpoints, observe)
    except ImportError:
        problem = "kv_events need their clients: pip install 'tokenext-chain[dynamo]'"
        raise SettingsError(source, problem) from None


def _instances(endpoints: EndpointSource) -> set[int]:
    known = (endpoint.dynamo_instance_id for endpoint in endpoints.current().endpoints)
    return {instance for instance in known if instance is not None}
