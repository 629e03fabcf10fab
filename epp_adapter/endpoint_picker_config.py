"""EndpointPickerConfig: the scheduler's configuration, in the YAML that operators of the reference EPP have.

Both apiVersions are read. What is not understood is refused by name: a key, a plugin type, a reference. Parts
that steer what the reference alone has (dataLayer, requestHandler, flowControl's queues) are read and do
nothing; docs/endpoint-picker-config.md lists them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import msgspec

from epp_adapter.picker_plugins import (
    PLUGIN_TYPES,
    Plugin,
    Role,
    UtilizationParameters,
    WeightedPlugin,
    seconds,
)
from epp_adapter.prefix_config import PrefixConfig, prefix_config
from epp_adapter.routing.saturation import UtilizationLimits
from extproc.settings_file import SettingsError, decode

__all__ = [
    "DEFAULT_CONFIG",
    "PickerConfig",
    "parse_picker_config",
    "utilization_limits",
]

P = TypeVar("P", bound=msgspec.Struct)

_DEFAULT_PICKER: Final = "max-score-picker"
_DETECTOR: Final = "utilization-detector"

# The reference's own default (pkg/epp/config/loader/defaults.go).
DEFAULT_CONFIG: Final = b"""\
apiVersion: llm-d.ai/v1alpha1
kind: EndpointPickerConfig
plugins: [{type: queue-scorer}, {type: kv-cache-utilization-scorer}, {type: prefix-cache-scorer}]
schedulingProfiles:
- name: default
  plugins:
  - {pluginRef: queue-scorer, weight: 2}
  - {pluginRef: kv-cache-utilization-scorer, weight: 2}
  - {pluginRef: prefix-cache-scorer, weight: 3}
"""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename="camel"):
    pass


class _PluginSpec(_Strict, frozen=True):
    type: str
    name: str = ""
    parameters: dict[str, Any] | None = None


class _PluginRef(_Strict, frozen=True):
    plugin_ref: str
    weight: float | None = None


class _ProfileSpec(_Strict, frozen=True):
    name: str
    plugins: tuple[_PluginRef, ...]


class _DetectorSpec(_Strict, frozen=True):
    """A reference, or in the oldest files the parameters themselves."""

    plugin_ref: str = ""
    queue_depth_threshold: int | None = None
    kv_cache_util_threshold: float | None = None
    metrics_staleness_threshold: str | None = None


class _FlowControl(_Strict, frozen=True):
    """Without the feature gate, which is refused, only the detector counts."""

    saturation_detector: _DetectorSpec | None = None
    max_bytes: Any = None
    max_requests: Any = None
    default_request_ttl: Any = msgspec.field(default=None, name="defaultRequestTTL")
    no_endpoint_request_ttl: Any = msgspec.field(default=None, name="noEndpointRequestTTL")
    default_priority_band: Any = None
    priority_bands: Any = None
    usage_limit_policy_plugin_ref: Any = None


class _Document(_Strict, frozen=True):
    api_version: Literal["llm-d.ai/v1alpha1", "inference.networking.x-k8s.io/v1alpha1"]
    kind: Literal["EndpointPickerConfig"]
    plugins: tuple[_PluginSpec, ...] = ()
    scheduling_profiles: tuple[_ProfileSpec, ...] = ()
    feature_gates: tuple[str, ...] = ()
    flow_control: _FlowControl | None = None
    saturation_detector: _DetectorSpec | None = None
    data_layer: Any = None
    request_handler: Any = None
    parser: Any = None


# Gates whose default is on, or that change nothing here.
_HARMLESS_GATES: Final = frozenset({"dataLayer", "prepareDataPlugins", "enableLegacyMetrics"})


@dataclass(frozen=True, slots=True)
class PickerConfig:
    """One profile, resolved. `prefix` None: nothing looks at prefixes."""

    profile: str
    filters: tuple[Plugin, ...]
    scorers: tuple[WeightedPlugin, ...]
    picker: Plugin
    limits: UtilizationLimits
    prefix: PrefixConfig | None


def parse_picker_config(text: bytes, *, source: str) -> PickerConfig:
    """Decode and check; `source` is what errors name. Raises SettingsError."""
    document = decode(text, _Document, source=source)
    for index, gate in enumerate(document.feature_gates):
        name, _, value = gate.partition("=")
        if name not in _HARMLESS_GATES and value != "false":
            raise SettingsError(source, f"{name!r} is not built here; leave it out", f"featureGates[{index}]")
    plugins = _plugins(document, source)
    profile, references = _profile(document, plugins, source)
    filters = [use.plugin for use in references if use.plugin.role is Role.FILTER]
    # The reference's detector is a filter too, where a profile names it.
    filters += [use.plugin for use in references if use.plugin.role is Role.SATURATION_DETECTOR]
    pickers = [use.plugin for use in references if use.plugin.role is Role.PICKER]
    scorers = tuple(use for use in references if use.plugin.role is Role.SCORER)
    if len(pickers) > 1:
        names = ", ".join(picker.name for picker in pickers)
        raise SettingsError(source, f"has more than one picker ({names})", f"schedulingProfiles.{profile}")
    return PickerConfig(
        profile=profile,
        filters=tuple(filters),
        scorers=scorers,
        picker=pickers[0] if pickers else _plugin_of(_DEFAULT_PICKER),
        limits=_limits(document, plugins, source),
        prefix=prefix_config(scorers, plugins, source),
    )


def _plugin_of(plugin_type: str) -> Plugin:
    return Plugin(plugin_type, plugin_type, msgspec.convert({}, PLUGIN_TYPES[plugin_type].parameters))


def _plugins(document: _Document, source: str) -> dict[str, Plugin]:
    plugins: dict[str, Plugin] = {}
    for index, spec in enumerate(document.plugins):
        name = spec.name or spec.type
        key = f"plugins[{index}]"
        if spec.type not in PLUGIN_TYPES:
            known = ", ".join(sorted(PLUGIN_TYPES))
            raise SettingsError(
                source, f"plugin {name!r} has type {spec.type!r}, which is none of: {known}", f"{key}.type"
            )
        if name in plugins:
            raise SettingsError(source, f"a second plugin is named {name!r}", f"{key}.name")
        try:
            parameters = msgspec.convert(spec.parameters or {}, PLUGIN_TYPES[spec.type].parameters)
        except msgspec.ValidationError as error:
            problem = f"plugin {name!r} of type {spec.type!r}: {error}"
            raise SettingsError(source, problem, f"{key}.parameters") from None
        plugins[name] = Plugin(name, spec.type, parameters)
    return plugins


def _profile(
    document: _Document, plugins: Mapping[str, Plugin], source: str
) -> tuple[str, Sequence[WeightedPlugin]]:
    """The profile's name and its plugins. Without any profile all plugins make one, as in the reference."""
    handlers = [plugin.name for plugin in plugins.values() if plugin.role is Role.PROFILE_HANDLER]
    if len(handlers) > 1:
        raise SettingsError(source, f"has more than one profile handler ({', '.join(handlers)})", "plugins")
    if not document.scheduling_profiles:
        return "default", [WeightedPlugin(plugin) for plugin in plugins.values()]
    if len(document.scheduling_profiles) > 1:
        names = ", ".join(profile.name for profile in document.scheduling_profiles)
        problem = f"single-profile-handler runs one profile, and here are several ({names})"
        raise SettingsError(source, problem, "schedulingProfiles")
    (profile,) = document.scheduling_profiles
    uses = []
    for index, reference in enumerate(profile.plugins):
        key = f"schedulingProfiles.{profile.name}.plugins[{index}]"
        plugin = _referenced(reference.plugin_ref, plugins, source, f"{key}.pluginRef")
        if reference.weight is not None and reference.weight < 0:
            raise SettingsError(source, "is below 0", f"{key}.weight")
        uses.append(WeightedPlugin(plugin, 1.0 if reference.weight is None else reference.weight))
    return profile.name, uses


def _referenced(name: str, plugins: Mapping[str, Plugin], source: str, key: str) -> Plugin:
    if name not in plugins:
        known = ", ".join(plugins) or "there are none"
        raise SettingsError(source, f"{name!r} is none of the plugins ({known})", key)
    return plugins[name]


def _limits(document: _Document, plugins: Mapping[str, Plugin], source: str) -> UtilizationLimits:
    key = "saturationDetector"
    spec = document.saturation_detector or _DetectorSpec()
    if document.flow_control and document.flow_control.saturation_detector:
        spec, key = document.flow_control.saturation_detector, "flowControl.saturationDetector"
    inline = {
        name: value
        for name, value in msgspec.to_builtins(spec).items()
        if name != "pluginRef" and value is not None
    }
    name = spec.plugin_ref or _DETECTOR
    if name == _DETECTOR and name not in plugins:
        plugin = Plugin(_DETECTOR, _DETECTOR, _convert(inline, UtilizationParameters, source, key))
    else:
        plugin = _referenced(name, plugins, source, f"{key}.pluginRef")
    if plugin.role is not Role.SATURATION_DETECTOR:
        raise SettingsError(source, f"{name!r} is no {_DETECTOR}", f"{key}.pluginRef")
    return utilization_limits(plugin, source)


def utilization_limits(plugin: Plugin, source: str) -> UtilizationLimits:
    """The limits that a utilization-detector or utilization-filter is given. Raises SettingsError."""
    parameters = plugin.parameters
    assert isinstance(parameters, UtilizationParameters)
    try:
        staleness = seconds(parameters.metrics_staleness_threshold)
    except ValueError as error:
        key = f"plugin {plugin.name!r}: metricsStalenessThreshold"
        raise SettingsError(source, str(error), key) from None
    return UtilizationLimits(
        queue_depth=parameters.queue_depth_threshold,
        kv_utilization=parameters.kv_cache_util_threshold,
        staleness_seconds=staleness,
        headroom=parameters.headroom,
    )


def _convert(values: Mapping[str, Any], parameters: type[P], source: str, key: str) -> P:
    try:
        return msgspec.convert(values, parameters)
    except msgspec.ValidationError as error:
        raise SettingsError(source, str(error), key) from None
