"""What prefix scorers are configured to know, from wherever EndpointPickerConfig says it: the scorer's own
parameters (older releases), a producer's, or a producer that the scorer names.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from epp_adapter.picker_plugins import (
    PLUGIN_TYPES,
    ApproxPrefixParameters,
    KvEventsConfig,
    Plugin,
    PrecisePrefixParameters,
    PrefixScorerParameters,
    WeightedPlugin,
)
from extproc.settings_file import SettingsError

__all__ = ["PrefixConfig", "prefix_config"]

_PREFIX_SCORERS: Final = ("prefix-cache-scorer", "precise-prefix-cache-scorer")


@dataclass(frozen=True, slots=True)
class PrefixConfig:
    """What the prefix scorers need. `exact` None: wherever KV events are followed.

    `max_tokens` None: no limit. `events` is the reference's own way to say where KV events come from.
    """

    exact: bool | None
    block_size: int | None
    max_tokens: int | None
    blocks_per_endpoint: int
    auto_tune: bool
    events: KvEventsConfig | None = None


def prefix_config(
    scorers: Sequence[WeightedPlugin], plugins: Mapping[str, Plugin], source: str
) -> PrefixConfig | None:
    """One knowledge of prefixes serves all prefix scorers; None where there is none. Raises SettingsError."""
    users = [use.plugin for use in scorers if use.plugin.type in _PREFIX_SCORERS]
    if not users:
        return None
    approximate, precise = _producers(plugins)
    exact: bool | None = None
    for plugin in users:
        if not isinstance(plugin.parameters, PrefixScorerParameters):
            exact = True
            continue
        approximate = _with_older_keys(approximate, plugin.parameters)
        named = _named_producer(plugin, plugin.parameters, plugins, source)
        exact = exact if named is None else named
    tokens = precise.token_processor_config
    size = approximate.block_size_tokens
    if exact or size is None:
        size = tokens.block_size_tokens or tokens.block_size or size
    return PrefixConfig(
        exact=exact,
        block_size=size,
        max_tokens=_max_tokens(approximate, size),
        blocks_per_endpoint=approximate.lru_capacity_per_server,
        auto_tune=approximate.auto_tune,
        events=precise.kv_events_config if exact is not False else None,
    )


def _producers(plugins: Mapping[str, Plugin]) -> tuple[ApproxPrefixParameters, PrecisePrefixParameters]:
    """The last of each kind counts: precise-prefix-cache-scorer is a producer of its own."""
    approximate, precise = ApproxPrefixParameters(), PrecisePrefixParameters()
    for plugin in plugins.values():
        if isinstance(plugin.parameters, ApproxPrefixParameters):
            approximate = plugin.parameters
        elif isinstance(plugin.parameters, PrecisePrefixParameters):
            precise = plugin.parameters
    return approximate, precise


def _named_producer(
    scorer: Plugin, parameters: PrefixScorerParameters, plugins: Mapping[str, Plugin], source: str
) -> bool | None:
    """Whether the producer that the scorer names is the exact one; None: it names none.

    A producer's type may stand for a producer that the file does not list, as in the reference.
    """
    name = parameters.prefix_match_info_producer_name
    if not name:
        return None
    key = f"plugin {scorer.name!r}: prefixMatchInfoProducerName"
    if name in plugins:
        chosen: type[msgspec.Struct] = type(plugins[name].parameters)
    elif name in PLUGIN_TYPES:
        chosen = PLUGIN_TYPES[name].parameters
    else:
        known = ", ".join(plugins) or "there are none"
        raise SettingsError(source, f"{name!r} is none of the plugins ({known})", key)
    if chosen not in (ApproxPrefixParameters, PrecisePrefixParameters):
        raise SettingsError(source, f"{name!r} is no prefix producer", key)
    return chosen is PrecisePrefixParameters


def _with_older_keys(
    producer: ApproxPrefixParameters, scorer: PrefixScorerParameters
) -> ApproxPrefixParameters:
    names = ("auto_tune", "block_size_tokens", "lru_capacity_per_server")
    limits = ("max_prefix_blocks_to_match", "max_prefix_tokens_to_match")
    given = {name: getattr(scorer, name) for name in (*names, *limits)}
    if given["max_prefix_blocks_to_match"] is not None and given["max_prefix_tokens_to_match"] is None:
        given["max_prefix_tokens_to_match"] = 0  # the older file means its own limit
    return msgspec.structs.replace(
        producer, **{name: value for name, value in given.items() if value is not None}
    )


def _max_tokens(parameters: ApproxPrefixParameters, block_size: int | None) -> int | None:
    if parameters.max_prefix_tokens_to_match:
        return parameters.max_prefix_tokens_to_match
    if parameters.max_prefix_blocks_to_match:
        return parameters.max_prefix_blocks_to_match * (block_size or 16)
    return None
