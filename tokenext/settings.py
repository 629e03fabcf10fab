"""The settings file of `tokenext serve`, decoded once into frozen values.

What is written here is all there is: unknown keys are errors, and checks report, never repair.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from extproc import settings_file
from extproc.log_settings import LogSettings
from extproc.settings_file import SettingsError
from extproc.tls import TlsSettings
from extproc.tracing import TracingSettings
from extproc.vllm_blocks import DEFAULT_SEED
from extproc.wellknown import RECORD_NAMESPACE
from tokenext.block_hashes import Scheme
from tokenext.engine import EngineName
from tokenext.exchange import OnOversize
from tokenext.generation import GenerationConfig
from tokenext.handoff import Handoff
from tokenext.parity import OracleKind
from tokenext.profiles import ProfileName

__all__ = [
    "Limits",
    "ModelSettings",
    "Settings",
    "VerifySettings",
    "check_address",
    "decode",
    "load",
    "profile_name",
]

_Name = Annotated[str, msgspec.Meta(min_length=1, max_length=256)]
_Positive = Annotated[int, msgspec.Meta(ge=1)]


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`workers` threads tokenize, `max_queued` requests wait for one; past `deadline_ms` a request passes.

    Requests of up to `max_inline_bytes`, a message counted as 256 bytes more, need no thread where nothing
    waits and the engine is fast; 0: all do. What is known of a conversation counts as a quarter.
    `render_deadline_ms` and `max_prompt_chars` hold a chat template, which no deadline of a request can stop.
    Requests on streams over `max_streams` pass unseen; those of more than `max_headers` header lines pass.
    For `linger_seconds` after SIGTERM new ones are still served, while health says not ready; then open ones
    have `drain_seconds` to end.
    """

    max_body_bytes: _Positive = 16 * 1024 * 1024
    on_oversize: OnOversize = OnOversize.PASS
    deadline_ms: _Positive = 2000
    workers: Annotated[int, msgspec.Meta(ge=1, le=256)] = 1
    max_queued: Annotated[int, msgspec.Meta(ge=0)] = 64
    max_inline_bytes: Annotated[int, msgspec.Meta(ge=0)] = 96 * 1024
    linger_seconds: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    drain_seconds: Annotated[float, msgspec.Meta(ge=0)] = 30.0
    max_streams: _Positive = 16_384
    max_headers: _Positive = 256
    render_deadline_ms: _Positive = 1000
    max_prompt_chars: _Positive = 32 * 1024 * 1024


class PrefixCacheSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`budget_bytes` bounds what a process keeps of the prompts it has tokenized (prefix_cache.py); 0: none.

    A prompt of 8,000 tokens takes about 0.1 MB. It is read at start only, like the limits.
    """

    budget_bytes: Annotated[int, msgspec.Meta(ge=0)] = 64 * 1024 * 1024


class ConversationSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`budget_bytes` bounds what a process keeps of conversations that may go on; 0: nothing.

    A conversation of 120,000 tokens takes 3 to 5 MB.
    """

    budget_bytes: Annotated[int, msgspec.Meta(ge=0)] = 16 * 1024 * 1024


class BreakerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`failures` of a model in a row (engine, deadlines) open its breaker; 0: never. Its requests then pass
    untokenized for `open_ms`; then one is a probe. Each probe that fails doubles that, up to `max_open_ms`.
    """

    failures: Annotated[int, msgspec.Meta(ge=0)] = 5
    open_ms: _Positive = 1_000
    max_open_ms: _Positive = 30_000


class HttpSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """vLLM's render and tokenize API (docs/render-api.md) on `listen`, host:port. Requests over
    `max_requests` that are open at once are answered 503 unread, as all are while the queue is full.
    """

    listen: str
    max_requests: _Positive = 256


class VerifySettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The running engine that a model's ids are compared with (tokenext/verification.py).

    `engine` is its URL, `model` the name it knows the model by, if not ours; `kind` is that of the profile
    unless given. `every_seconds: null` asks only at start.
    """

    engine: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/\s]+/?$")]
    kind: OracleKind | None = None
    model: _Name | None = None
    every_seconds: Annotated[float, msgspec.Meta(ge=1)] | None = 300.0
    at_start: bool = True


class DynamoBlockHashes(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag_field="scheme", tag=Scheme.DYNAMO.value
):
    """`block_size` is the workers' own KV block size."""

    block_size: _Positive


class VllmBlockHashes(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    tag_field="scheme",
    tag=Scheme.VLLM_SHA256_CBOR.value,
):
    """Of a vLLM with --prefix-caching-hash-algo sha256_cbor. `seed` is its PYTHONHASHSEED, if set."""

    block_size: _Positive = 16
    seed: str = DEFAULT_SEED


class ModelSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`source`: a directory, or a Hugging Face hub id as org/name[@revision].

    `profile` is whose way to a prompt is the engine's; unless given, that of the hand-off, and transformers
    where there is none. `loras` are adapters' names, which take the model's prompts. `trusted_template` lets
    the chat template run without sandbox and bounds. `strip_messages` replaces a chat's messages by a stub
    where ids are handed over: less for the engine to read, and nothing for it to complain about.
    `block_hashes` None: records have none. `max_length` None: a bundle's, or no limit; the HTTP API then goes
    by config.json. `generation_config` is whose sampling defaults that API answers with.
    """

    name: _Name
    source: _Name
    aliases: tuple[_Name, ...] = ()
    chat_template: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    chat_template_kwargs: dict[str, Any] = {}
    max_length: _Positive | None = None
    handoff: Handoff = Handoff.NONE
    strip_messages: bool = False
    profile: ProfileName | None = None
    loras: tuple[_Name, ...] = ()
    trusted_template: bool = False
    engine: EngineName = EngineName.AUTO
    verify: VerifySettings | None = None
    block_hashes: DynamoBlockHashes | VllmBlockHashes | None = None
    generation_config: GenerationConfig = GenerationConfig.AUTO


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """`listen` and `admin` are unix:/path (listen only) or host:port; `admin` serves /metrics, to who knows
    the token in `admin_token_file` (relative to the settings file); None: to everybody. `tls` is one more
    address, for callers on another host. `tracing` None: no spans; `http`
    None: no HTTP API.
    """

    listen: str
    models: Annotated[tuple[ModelSettings, ...], msgspec.Meta(min_length=1)]
    admin: str | None = None
    admin_token_file: Annotated[str, msgspec.Meta(min_length=1)] | None = None
    tls: TlsSettings | None = None
    metadata_namespace: _Name = RECORD_NAMESPACE
    log: LogSettings = LogSettings()
    limits: Limits = Limits()
    prefix_cache: PrefixCacheSettings = PrefixCacheSettings()
    conversations: ConversationSettings = ConversationSettings()
    breaker: BreakerSettings = BreakerSettings()
    tracing: TracingSettings | None = None
    http: HttpSettings | None = None


def load(path: Path) -> Settings:
    """Read, decode and check a settings file. Raises SettingsError."""
    settings = settings_file.load(path, Settings)
    _check(settings, str(path))
    return settings


def decode(text: bytes, *, source: str) -> Settings:
    """As `load`, from text. `source` is what errors name."""
    settings = settings_file.decode(text, Settings, source=source)
    _check(settings, source)
    return settings


_HOST_PORT: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^\[\]:/\s]+):(\d{1,5})")


def check_address(address: str, *, source: str, key: str, unix: bool) -> None:
    """Raises SettingsError for what is no address to listen on."""
    if unix and address.startswith("unix:"):
        if not address.removeprefix("unix:").startswith("/"):
            raise SettingsError(source, "unix: wants an absolute path, as in unix:/run/tokenext.sock", key)
        return
    match = _HOST_PORT.fullmatch(address)
    if match is None or int(match[2]) > 65535:  # noqa: PLR2004  # the highest port there is
        forms = "unix:/path or host:port" if unix else "host:port"
        raise SettingsError(source, f"must be {forms}, as in 127.0.0.1:9000", key)


def _check(settings: Settings, source: str) -> None:
    check_address(settings.listen, source=source, key="listen", unix=True)
    if settings.admin is not None:
        check_address(settings.admin, source=source, key="admin", unix=False)
    if settings.tls is not None:
        check_address(settings.tls.listen, source=source, key="tls.listen", unix=False)
    if settings.http is not None:
        check_address(settings.http.listen, source=source, key="http.listen", unix=False)
    _check_profiles(settings, source)
    seen: dict[str, str] = {}
    for key, name in _names(settings):
        if name in seen:
            raise SettingsError(source, f"{name!r} is the name of {seen[name]} already", key)
        seen[name] = key


def _names(settings: Settings) -> Iterator[tuple[str, str]]:
    for number, model in enumerate(settings.models):
        yield f"models[{number}].name", model.name
        for position, alias in enumerate(model.aliases):
            yield f"models[{number}].aliases[{position}]", alias
        for position, lora in enumerate(model.loras):
            yield f"models[{number}].loras[{position}]", lora


# A hand-off is safe only with the profile of the engine that takes it.
_PROFILE_OF: Final[Mapping[Handoff, ProfileName]] = {
    Handoff.DYNAMO: ProfileName.DYNAMO,
    Handoff.VLLM: ProfileName.VLLM,
    Handoff.SGLANG: ProfileName.SGLANG,
}


def profile_name(model: ModelSettings) -> ProfileName:
    """The profile of a model, by its settings or its hand-off."""
    return model.profile or _PROFILE_OF.get(model.handoff, ProfileName.TRANSFORMERS)


def _check_profiles(settings: Settings, source: str) -> None:
    for number, model in enumerate(settings.models):
        needed = _PROFILE_OF.get(model.handoff)
        if needed is not None and profile_name(model) is not needed:
            problem = f"must be {needed} for hand-off {model.handoff}: the ids would be another engine's"
            raise SettingsError(source, problem, f"models[{number}].profile")
