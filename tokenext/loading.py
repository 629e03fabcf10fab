"""Builds the catalog that the settings describe: finds files, loads engines, compiles templates."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

from extproc.settings_file import SettingsError
from extproc.verdict import JsonValue
from tokenext.block_hashes import BlockHasher, DynamoHasher, VllmHasher
from tokenext.bundle import read_bundle
from tokenext.catalog import Catalog, Model, digest
from tokenext.chat_template import ChatTemplates, TemplateSourceError
from tokenext.dynamo_profile import DynamoProfile
from tokenext.engines.choice import UnusableEngineError, choose
from tokenext.engines.huggingface import TokenizerFileError
from tokenext.engines.vocabulary import HuggingFaceVocabulary
from tokenext.generation import GenerationConfig
from tokenext.hub import locate
from tokenext.model_files import ModelFiles, read_model, read_template
from tokenext.model_hints import Renderer, is_changed_by_dynamo
from tokenext.parity import OracleKind, Verification
from tokenext.prefix_cache import with_prefix_cache
from tokenext.prefix_tree import PrefixTree
from tokenext.profiles import InexactReason, Profile, ProfileName
from tokenext.settings import DynamoBlockHashes, ModelSettings, Settings, VllmBlockHashes, profile_name
from tokenext.sglang_profile import SglangProfile
from tokenext.template_bounds import RenderBounds
from tokenext.transformers_profile import TransformersProfile
from tokenext.vllm_profile import VllmProfile

__all__ = ["LoadedModel", "load_catalog", "load_model"]

Now = Callable[[], datetime]
_ProfileType = type[DynamoProfile] | type[VllmProfile] | type[TransformersProfile]

_DEFAULT_BOUNDS: Final = RenderBounds(clock=time.thread_time)
_PROFILES: Final[Mapping[ProfileName, _ProfileType]] = {
    ProfileName.DYNAMO: DynamoProfile,
    ProfileName.VLLM: VllmProfile,
    ProfileName.SGLANG: SglangProfile,
    ProfileName.TRANSFORMERS: TransformersProfile,
}


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A model, and what it was made of, for people's tools: its files, and the tokenizer in use."""

    model: Model
    files: ModelFiles
    tokenizer_json: bytes


def load_catalog(
    settings: Settings, *, source: str, now: Now, prefix_tree: PrefixTree | None = None
) -> Catalog:
    """Load every model. Takes seconds and blocks. Raises SettingsError for the first that cannot be loaded.

    `source` is the settings file, which errors name with the key of the model. `prefix_tree` keeps what their
    engines have encoded; None for nothing.
    """
    bounds = RenderBounds(
        max_chars=settings.limits.max_prompt_chars,
        seconds=settings.limits.render_deadline_ms / 1000,
        clock=time.thread_time,  # a busy machine is no reason to stop a template
    )
    return Catalog(
        load_model(
            model,
            f"models[{number}]",
            source=source,
            now=now,
            bounds=bounds,
            prefix_tree=prefix_tree,
            with_vocabulary=settings.http is not None,
        ).model
        for number, model in enumerate(settings.models)
    )


def load_model(
    model: ModelSettings,
    key: str,
    *,
    source: str,
    now: Now,
    bounds: RenderBounds = _DEFAULT_BOUNDS,
    prefix_tree: PrefixTree | None = None,
    with_vocabulary: bool = False,
) -> LoadedModel:
    """Load one model. `source` and `key` are what errors name. Raises SettingsError.

    `bounds` hold its templates, unless the settings trust them.
    """
    profile_type = _PROFILES[profile_name(model)]
    directory = locate(model.source, source=source, key=f"{key}.source")
    override = Path(model.chat_template) if model.chat_template else None
    files, template_kwargs, max_length = _read(directory, model, override)
    tokenizer_json, doubt = _tokenizer(files, profile_type)
    try:
        choice = choose(tokenizer_json, model.engine)
    except TokenizerFileError as error:
        raise SettingsError(str(directory / "tokenizer.json"), f"is no usable tokenizer: {error}") from None
    except UnusableEngineError as error:
        raise SettingsError(source, str(error), f"{key}.engine") from None
    try:
        templates = ChatTemplates(
            files.chat_templates, now=now, bounds=None if model.trusted_template else bounds
        )
    except TemplateSourceError as error:
        where = f"the chat template of {directory if override is None else override}"
        raise SettingsError(source, f"{where} cannot be compiled: {error}", key) from None
    profile = profile_type(
        templates,
        special_tokens=files.special_tokens,
        template_kwargs=template_kwargs,
        dedicated_renderer=files.renderer is not Renderer.CHAT_TEMPLATE,
    )
    likely = [*files.chat_templates.values(), *files.special_tokens.values()]
    caching = with_prefix_cache(choice.engine, tokenizer_json, prefix_tree, likely=likely)
    loaded = Model(
        name=model.name,
        aliases=model.aliases,
        loras=model.loras,
        digest=digest(tokenizer_json, files.chat_templates, files.special_tokens, template_kwargs),
        engine=caching.engine,
        engine_reason=f"{choice.reason}; {_UNPROVED[doubt]}" if doubt in _UNPROVED else choice.reason,
        profile=profile,
        handoff=model.handoff,
        strip_messages=model.strip_messages,
        prefix_cache=caching.state,
        max_length=max_length,
        doubt=doubt,
        verification=_verification(model, profile, f"{key}.verify", source=source),
        block_hasher=_block_hasher(model.block_hashes),
        vocabulary=HuggingFaceVocabulary(tokenizer_json) if with_vocabulary else None,
        max_model_len=model.max_length or files.max_model_len,
        sampling_defaults=files.sampling_defaults if model.generation_config is GenerationConfig.AUTO else {},
    )
    return LoadedModel(loaded, files, tokenizer_json)


def _block_hasher(asked: DynamoBlockHashes | VllmBlockHashes | None) -> BlockHasher | None:
    if asked is None:
        return None
    if isinstance(asked, DynamoBlockHashes):
        return DynamoHasher(asked.block_size)
    return VllmHasher(asked.block_size, asked.seed)


def _read(
    directory: Path, model: ModelSettings, override: Path | None
) -> tuple[ModelFiles, Mapping[str, JsonValue], int | None]:
    """Files, template arguments and longest prompt: a bundle's come first, then the settings' own."""
    bundle = read_bundle(directory)
    if bundle is None:
        return read_model(directory, chat_template=override), model.chat_template_kwargs, model.max_length
    manifest, files = bundle
    if override is not None:
        files = replace(files, chat_templates=read_template(override))
    template_kwargs = {**manifest.chat_template_kwargs, **model.chat_template_kwargs}
    return files, template_kwargs, model.max_length or manifest.max_length


_UNPROVED: Final = {
    InexactReason.TOKENIZER: (
        "not known to be the engine's own tokenizer, which `tokenext bundle` would make: no hand-off"
    ),
    InexactReason.ENGINE_RULE: "Dynamo may change this model's prompts, by its worker's parsers: no hand-off",
}


def _tokenizer(files: ModelFiles, profile: _ProfileType) -> tuple[bytes, InexactReason | None]:
    """The tokenizer that engines of this profile work with, or one in its place, and why no id is exact.

    Dynamo's frontend reads tokenizer.json, every other engine loads through transformers. Measured with Llama
    2's: transformers makes one of other ids of it. How it does so is known by its doing alone.
    """
    if profile is DynamoProfile:
        if files.without_file:
            return files.tokenizer_json, InexactReason.TOKENIZER
        changed = is_changed_by_dynamo(files.model_type)
        return files.tokenizer_json, InexactReason.ENGINE_RULE if changed else None
    if files.renderer is Renderer.MISTRAL:
        # Its tokenizer is mistral-common's, for completions, too.
        return files.tokenizer_json, InexactReason.DEDICATED_RENDERER
    if files.transformers_json is None:
        return files.tokenizer_json, InexactReason.TOKENIZER
    return files.transformers_json, None


def _verification(model: ModelSettings, profile: Profile, key: str, *, source: str) -> Verification | None:
    settings = model.verify
    if settings is None:
        return None
    try:
        kind = settings.kind or OracleKind(profile.name)
    except ValueError:
        problem = f"is needed: engines of profile {profile.name} show no ids by themselves ({_KINDS})"
        raise SettingsError(source, problem, f"{key}.kind") from None
    return Verification(
        engine=settings.engine,
        kind=kind,
        engine_model=settings.model or model.name,
        every_seconds=settings.every_seconds,
        at_start=settings.at_start,
    )


_KINDS: Final = " or ".join(OracleKind)
