"""Builds the catalog that the settings describe: finds files, loads engines, compiles templates."""

from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from extproc.settings_file import SettingsError
from tokenext.catalog import Catalog, Model, digest
from tokenext.chat_template import ChatTemplates, TemplateSourceError
from tokenext.dynamo_profile import DynamoProfile
from tokenext.engines.choice import UnusableEngineError, choose
from tokenext.engines.huggingface import TokenizerFileError
from tokenext.hub import locate
from tokenext.model_files import read_model
from tokenext.settings import ModelSettings, Settings

__all__ = ["load_catalog"]

Now = Callable[[], datetime]

# config.json's model_type of models for which engines have code instead of a chat template
# (Dynamo: lib/llm/src/preprocessor/prompt/deepseek_*.rs; vLLM and Dynamo: Harmony for gpt-oss).
_DEDICATED_RENDERERS: Final = ("deepseek_v3", "deepseek_v4", "gpt_oss")


def load_catalog(settings: Settings, *, source: str, now: Now) -> Catalog:
    """Load every model. Takes seconds and blocks. Raises SettingsError for the first that cannot be loaded.

    `source` is the settings file, which errors name with the key of the model.
    """
    return Catalog(
        _load_model(model, f"models[{number}]", source=source, now=now)
        for number, model in enumerate(settings.models)
    )


def _load_model(model: ModelSettings, key: str, *, source: str, now: Now) -> Model:
    directory = locate(model.source, source=source, key=f"{key}.source")
    override = Path(model.chat_template) if model.chat_template else None
    files = read_model(directory, chat_template=override)
    try:
        choice = choose(files.tokenizer_json, model.engine)
    except TokenizerFileError as error:
        raise SettingsError(str(directory / "tokenizer.json"), f"is no usable tokenizer: {error}") from None
    except UnusableEngineError as error:
        raise SettingsError(source, str(error), f"{key}.engine") from None
    try:
        templates = ChatTemplates(files.chat_templates, now=now)
    except TemplateSourceError as error:
        where = f"the chat template of {directory if override is None else override}"
        raise SettingsError(source, f"{where} cannot be compiled: {error}", key) from None
    return Model(
        name=model.name,
        aliases=model.aliases,
        digest=digest(
            files.tokenizer_json, files.chat_templates, files.special_tokens, model.chat_template_kwargs
        ),
        engine=choice.engine,
        engine_reason=choice.reason,
        profile=DynamoProfile(
            templates,
            special_tokens=files.special_tokens,
            template_kwargs=model.chat_template_kwargs,
            dedicated_renderer=files.model_type.startswith(_DEDICATED_RENDERERS),
        ),
        handoff=model.handoff,
        max_length=model.max_length,
    )
