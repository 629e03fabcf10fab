"""What a model's configuration tells of its engines: who renders its prompts, how long they may be."""

import re
from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Final

from extproc.verdict import JsonValue

__all__ = ["Renderer", "context_length", "is_changed_by_dynamo", "max_model_len", "renderer"]


class Renderer(StrEnum):
    """What an engine makes a model's prompts with. Only those of a chat template can be proved equal."""

    CHAT_TEMPLATE = "chat_template"
    HARMONY = "harmony"  # gpt-oss: code of openai-harmony, in vLLM and in Dynamo
    MISTRAL = "mistral"  # vLLM takes mistral-common where its files are
    DEDICATED = "dedicated"  # the engine has code of its own for this model


# config.json's model_type of models for which engines have code instead of a chat template
# (Dynamo: lib/llm/src/preprocessor/prompt/deepseek_*.rs and RULES.md L4; vLLM 0.32: config/model.py).
_DEDICATED: Final = ("deepseek_v3", "deepseek_v4", "kimi_k3", "kimi_audio", "inkling")
# Models whose parsers, named in Dynamo's worker and unseen from here, change the prompt; and templates that
# Dynamo patches (RULES.md W1 to W3, L5).
_CHANGED_BY_DYNAMO: Final = ("glm4", "minimax_m3", "kimi", "gemma4")
_HARMONY: Final = "gpt_oss"
_MISTRAL_FILES: Final = re.compile(r"tekken\.json|tokenizer\.model\.v\d.*")
# Where config.json may have a length, as vLLM looks for it.
_LENGTHS: Final = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "seq_length", "model_max_length"),
    *("max_target_positions", "max_sequence_length", "max_seq_length", "seq_len"),
)
_LONGROPE: Final = frozenset({"su", "longrope"})
_SCALED_ALREADY: Final = _LONGROPE | {
    *("llama3", "yarn", "deepseek_yarn", "deepseek_llama_scaling", "telechat3-yarn")
}


def renderer(model_type: str, files: Collection[str]) -> Renderer:
    """Decide from config.json's model_type and the names of the files beside it."""
    if model_type.startswith(_HARMONY):
        return Renderer.HARMONY
    if any(_MISTRAL_FILES.fullmatch(name) for name in files):
        return Renderer.MISTRAL
    return Renderer.DEDICATED if model_type.startswith(_DEDICATED) else Renderer.CHAT_TEMPLATE


def is_changed_by_dynamo(model_type: str) -> bool:
    """Whether Dynamo may do more to the model's prompts than its files and the request tell."""
    return model_type.startswith(_CHANGED_BY_DYNAMO)


def context_length(config: Mapping[str, JsonValue]) -> int | None:
    """The longest prompt that config.json allows, in tokens; None where it does not say.

    Engines extend it by the factor of rope scaling, each in its own way: the longest reading counts here, so
    that no request is taken for too long that an engine would serve.
    """
    texts = config.get("text_config")
    sources = [config, texts] if isinstance(texts, dict) else [config]
    return max((length for each in sources if (length := _length(each)) is not None), default=None)


def _length(config: Mapping[str, JsonValue]) -> int | None:
    positions = config.get("max_position_embeddings")
    if not isinstance(positions, int) or positions < 1:
        return None
    scaling = config.get("rope_scaling") or config.get("rope_parameters")
    factor = scaling.get("factor") if isinstance(scaling, dict) else None
    return int(positions * factor) if isinstance(factor, int | float) and factor > 1 else positions


def max_model_len(config: Mapping[str, JsonValue]) -> int | None:
    """The context that vLLM gives a model by itself, in tokens; None where config.json does not decide it.

    vLLM 0.32: config/model.py (_get_and_verify_max_len), model_arch_config_convertor.py
    (derive_max_model_len_and_key). The smallest of the keys counts, unless there is a model_max_length; only
    types of rope that leave max_position_embeddings unscaled have their factor applied; longrope starts with
    what it was trained for. tokenizer_config.json's model_max_length counts for pooling models alone. What a
    file leaves out has the default of the model's class in transformers, which is not known here.
    """
    outer, texts = config, config.get("text_config") or config.get("llm_config")
    if isinstance(texts, dict):
        config = texts
    lengths = {name: found for name in _LENGTHS if (found := _positive(config.get(name))) is not None}
    if not lengths:
        return None
    length = lengths.get("model_max_length", min(lengths.values()))
    ropes = _ropes(config)
    # Its length is scaled already.
    if "gemma3" not in str(config.get("model_type") or outer.get("model_type") or ""):
        factors = [rope.get("factor", 1.0) for rope in ropes if _rope_type(rope) not in _SCALED_ALREADY]
        factor = factors[-1] if factors else None
        length *= factor if isinstance(factor, int | float) and factor > 0 else 1.0
    if any(_rope_type(rope) in _LONGROPE for rope in ropes):
        trained = _positive(config.get("original_max_position_embeddings"))
        return None if trained is None else int(trained)
    return int(length)


def _ropes(config: Mapping[str, JsonValue]) -> list[Mapping[str, JsonValue]]:
    """One, or one for each type of layer."""
    found = config.get("rope_scaling") or config.get("rope_parameters")
    if not isinstance(found, dict):
        return []
    return [each for each in found.values() if isinstance(each, dict)] or [found]


def _rope_type(rope: Mapping[str, JsonValue]) -> JsonValue:
    return rope.get("rope_type") or rope.get("type")


def _positive(value: JsonValue) -> float | None:
    return float(value) if isinstance(value, int | float) and value >= 1 and value is not True else None
