"""The settings of `epp-adapter serve`: one YAML file, decoded once and strictly."""

import re
from pathlib import Path
from typing import Annotated, Final

import msgspec
from msgspec import Meta

from epp_adapter.dynamo_settings import (
    DynamoSelectionSettings,
    DynamoSettings,
    check_dynamo,
    check_selection,
)
from epp_adapter.pool_settings import (
    EndpointsSettings,
    HealthSettings,
    RewriteSettings,
    ScrapeSettings,
    check_endpoints,
)
from epp_adapter.records.callout_tls import CalloutTlsSettings
from extproc.log_settings import LogSettings
from extproc.settings_file import SettingsError, decode
from extproc.tls import TlsSettings
from extproc.tracing import TracingSettings
from extproc.wellknown import RECORD_NAMESPACE

__all__ = [
    "DynamoEventsSettings",
    "DynamoSelectionSettings",
    "DynamoSettings",
    "EndpointsSettings",
    "InternalSettings",
    "ModelSettings",
    "RoundRobinSettings",
    "Settings",
    "StrategySettings",
    "TokenizationSettings",
    "VllmEventsSettings",
    "listen_address",
    "load_settings",
    "parse_settings",
]

Seconds = Annotated[float, Meta(gt=0)]
Milliseconds = Annotated[int, Meta(gt=0)]

# Strategy names travel in a header and are metric labels.
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,62})")
_DYNAMO_ENDPOINT: Final = re.compile(r"(dyn://)?[\w-]+\.[\w-]+\.[\w-]+")
_ZMQ_ADDRESS: Final = re.compile(r"tcp://.+:\d{1,5}|ipc://.+")
_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]\s/]+):\d{1,5}")


class RoundRobinSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="round-robin"
):
    """Nothing to set, and no deadline: it never waits."""


class DynamoEventsSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="dynamo"
):
    """`endpoint` is the workers' "namespace.component.endpoint"; `nats` None: what NATS_SERVER says."""

    endpoint: str
    nats: str | None = None


class VllmEventsSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="vllm"
):
    """Where vLLM publishes: `port` and `replay_port` on each endpoint's ip, or all to us at `bind`."""

    port: Annotated[int, Meta(gt=0, le=65535)] = 5557
    replay_port: Annotated[int, Meta(gt=0, le=65535)] | None = None
    data_parallel_size: Annotated[int, Meta(gt=0, le=1024)] = 1
    bind: str | None = None
    topic: str = ""


class InternalSettings(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="kind", tag="internal"
):
    """`config` is an EndpointPickerConfig file, relative to the settings file; None: the reference's default.

    `block_size` is the workers' own KV block size; None: the config's, else 16. With `kv_events` prefixes are
    known exactly, without from this process's own picks. `max_blocks` bounds what is remembered of KV events.
    `seed` makes the random pickers repeat themselves.
    """

    config: str | None = None
    block_size: Annotated[int, Meta(gt=0)] | None = None
    kv_events: DynamoEventsSettings | VllmEventsSettings | None = None
    max_blocks: Annotated[int, Meta(gt=0)] = 1_000_000
    seed: int | None = None


StrategySettings = DynamoSettings | DynamoSelectionSettings | InternalSettings | RoundRobinSettings


class TokenizationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where token ids are looked for when a request brought no record, and what becomes of one.

    `take_ids_out`: when the record has been read, the metadata keeps it without its ids, since Envoy would
    repeat them on every further message of the stream. False where a later filter reads them, too.
    `trust_body_ids`: tokenext stands before this filter, so ids in a body are its own. `address` is where
    tokenext's Tokenization RPC is called, unix:/path or host:port; None: nowhere. Both need a filter that
    shows bodies. `tls`: it is called over TLS; None: in plain text.
    """

    take_ids_out: bool = True
    trust_body_ids: bool = False
    address: str | None = None
    deadline_ms: Milliseconds = 200
    tls: CalloutTlsSettings | None = None


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`strategy` routes the model's requests that name none. A record with another digest than
    `tokenizer_digest` is not used. `lora`: it is an adapter, whose cached blocks are its own.
    """

    strategy: str | None = None
    tokenizer_digest: Annotated[str, Meta(pattern="^sha256:[0-9a-f]{64}$")] | None = None
    lora: bool = False


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`default_strategy` picks where a request names none in x-routing-strategy. `fallback` is asked, in
    order, where the first strategy cannot pick. `admin` is where /metrics is served; None: nowhere.
    `admin_token_file`, relative to the settings file: it is served to who knows the token in there; None: to
    everybody.

    `scrape` None: no metrics are scraped. `destination_fallbacks`: how many endpoints a destination
    names beside its first. `conformance`: clients may choose their endpoint, as the conformance suite does.
    `require_model`: a body without a model is 400. `objectives` are priorities by name, where no pool says
    them. `models` are by the names of tokenext's catalog. `tls` is for gateways that call nothing but TLS.
    Requests on streams over `max_streams` are answered 429, those of over `max_headers` header lines 431.
    `tracing` None: no spans.
    """

    listen: str
    endpoints: EndpointsSettings
    strategies: dict[str, StrategySettings]
    default_strategy: str
    fallback: tuple[str, ...] = ()
    admin: str | None = None
    admin_token_file: Annotated[str, Meta(min_length=1)] | None = None
    metadata_namespace: Annotated[str, Meta(min_length=1)] = RECORD_NAMESPACE
    clear_route_cache: bool = False
    linger_seconds: Annotated[float, Meta(ge=0)] = 0.0
    drain_seconds: Annotated[float, Meta(ge=0)] = 30.0
    max_streams: Annotated[int, Meta(ge=1)] = 16_384
    max_headers: Annotated[int, Meta(ge=1)] = 256
    log: LogSettings = LogSettings()
    health: HealthSettings = HealthSettings()
    scrape: ScrapeSettings | None = None
    destination_fallbacks: Annotated[int, Meta(ge=0, le=16)] = 0
    conformance: bool = False
    require_model: bool = False
    objectives: dict[str, int] = {}
    model_rewrites: list[RewriteSettings] = []
    tokenization: TokenizationSettings = TokenizationSettings()
    tls: TlsSettings | None = None
    tracing: TracingSettings | None = None
    models: dict[str, ModelSettings] = {}

    def chain(self, name: str) -> tuple[str, ...]:
        """The strategies to ask, in order, for a request that is to be routed by `name`."""
        return (name, *(other for other in self.fallback if other != name))


def load_settings(path: Path, *, listen: str | None = None, admin: str | None = None) -> Settings:
    """Read a settings file; `listen` and `admin` take the place of its own. Raises SettingsError."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise SettingsError(str(path), f"cannot be read: {error.strerror}") from None
    return parse_settings(text, source=str(path), listen=listen, admin=admin)


def parse_settings(
    text: bytes, *, source: str, listen: str | None = None, admin: str | None = None
) -> Settings:
    """Decode and check; `source` is what errors name."""
    settings = decode(text, Settings, source=source)
    _check_address(settings.listen, source, "listen", unix=True)
    if settings.admin is not None:
        _check_address(settings.admin, source, "admin", unix=False)
    if settings.tls is not None:
        _check_address(settings.tls.listen, source, "tls.listen", unix=False)
    _check_tokenization(settings.tokenization, source)
    fixed = bool(settings.objectives or settings.model_rewrites)
    check_endpoints(settings.endpoints, fixed=fixed, source=source)
    for name, strategy in settings.strategies.items():
        _check_strategy(name, strategy, source)
    _check_choosing(settings, source)
    return _overridden(settings, listen, admin)


def _check_tokenization(settings: TokenizationSettings, source: str) -> None:
    address, tls = settings.address, settings.tls
    if address is not None:
        _check_address(address, source, "tokenization.address", unix=True)
    if tls is not None:
        if address is None or address.startswith("unix:"):
            raise SettingsError(source, "needs host:port in `address`", "tokenization.tls")
        if (tls.certificate is None) is not (tls.key is None):
            raise SettingsError(source, "certificate and key need each other", "tokenization.tls")


def _check_strategy(name: str, strategy: StrategySettings, source: str) -> None:
    key = f"strategies.{name}"
    if not _NAME.fullmatch(name):
        raise SettingsError(source, "a name is made of a-z, 0-9 and -, at most 63 of them", key)
    if isinstance(strategy, DynamoSettings):
        check_dynamo(strategy, source, key)
    if isinstance(strategy, DynamoSelectionSettings):
        check_selection(strategy, source, key)
    if isinstance(strategy, InternalSettings):
        _check_events(strategy.kv_events, source, f"{key}.kv_events")


def _check_choosing(settings: Settings, source: str) -> None:
    _check_name(settings.default_strategy, settings, source, "default_strategy")
    for index, name in enumerate(settings.fallback):
        _check_name(name, settings, source, f"fallback[{index}]")
        if name in settings.fallback[:index]:
            raise SettingsError(source, f"{name} stands here twice", f"fallback[{index}]")
    for model, chosen in settings.models.items():
        if chosen.strategy is not None:
            _check_name(chosen.strategy, settings, source, f"models.{model}.strategy")


def _overridden(settings: Settings, listen: str | None, admin: str | None) -> Settings:
    if listen is not None:
        _check_address(listen, "--listen", None, unix=True)
        settings = msgspec.structs.replace(settings, listen=listen)
    if admin is not None:
        _check_address(admin, "--admin", None, unix=False)
        settings = msgspec.structs.replace(settings, admin=admin)
    return settings


def _check_events(events: DynamoEventsSettings | VllmEventsSettings | None, source: str, key: str) -> None:
    if isinstance(events, DynamoEventsSettings) and not _DYNAMO_ENDPOINT.fullmatch(events.endpoint):
        raise SettingsError(source, "is not namespace.component.endpoint", f"{key}.endpoint")
    if isinstance(events, VllmEventsSettings) and events.bind is not None:
        if not _ZMQ_ADDRESS.fullmatch(events.bind):
            raise SettingsError(source, "is not tcp://host:port or ipc:///path", f"{key}.bind")
        if events.replay_port is not None or events.data_parallel_size != 1:
            problem = "replay_port and data_parallel_size need `port`: who connects to us cannot be asked"
            raise SettingsError(source, problem, key)


def _check_name(name: str, settings: Settings, source: str, key: str) -> None:
    if name not in settings.strategies:
        known = ", ".join(settings.strategies) or "there are none"
        raise SettingsError(source, f"{name!r} is none of the strategies ({known})", key)


def _check_address(address: str, source: str, key: str | None, *, unix: bool) -> None:
    if unix and address.startswith("unix:") and len(address) > len("unix:"):
        return
    if not _HOST_PORT.fullmatch(address):
        raise SettingsError(source, f"is not {'unix:/path or ' if unix else ''}host:port", key)


def listen_address(address: str) -> tuple[str, int]:
    """Host and port of a checked host:port; IPv6 without brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)
