"""Which engine serves a tokenizer: fastokens where it agrees with the reference, else the reference."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from tokenext.engine import EngineError, EngineName, TokenizerEngine
from tokenext.engines.fast import FastEngine, UnsupportedTokenizerError
from tokenext.engines.huggingface import HuggingFaceEngine

__all__ = ["EngineChoice", "UnusableEngineError", "choose", "first_mismatch"]


class UnusableEngineError(ValueError):
    """The engine that the catalog asks for cannot serve this tokenizer; the message says why."""


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """`reason` says in words why this engine serves."""

    engine: TokenizerEngine
    reason: str


def choose(tokenizer_json: bytes, wanted: EngineName) -> EngineChoice:
    """Load an engine. Raises TokenizerFileError (no engine takes the file) or UnusableEngineError."""
    reference = HuggingFaceEngine(tokenizer_json)
    if wanted is EngineName.HUGGINGFACE:
        return EngineChoice(reference, "asked for by the catalog")
    problem: str | None = None
    try:
        fast = FastEngine(tokenizer_json)
    except UnsupportedTokenizerError as error:
        problem = f"fastokens does not take this tokenizer: {error}"
    else:
        probe = first_mismatch(reference, fast, reference.added_tokens)
        if probe is None:
            return EngineChoice(fast, "agrees with the reference on the probe corpus")
        problem = f"fastokens differs from the reference on probe {probe}"
    if wanted is EngineName.FASTOKENS:
        raise UnusableEngineError(problem)
    return EngineChoice(reference, problem)


_PROBES: Final = (
    "",
    " ",
    "Hello, world!",
    "  leading and trailing  ",
    "a\tb\nc\r\nd\n\n\n  e\u00a0f\u3000g\u200b",
    "don't, we'll, I'VE, they'd; 'tis",
    "0 12 345 6789 1234567890 3.14159 1e-7 0x1F",
    "def f(x):\n    return {\n        'k': [x ** 2, x or None],\n    }\n\n\t\tpass  # done\n",
    '{"name": "get_weather", "arguments": {"city": "Zürich", "days": 3}}',
    "<p class='x'>&amp; &lt;</p> https://example.org/a?b=c&d=%20#e",
    "e\u0301 \u00e9 \ufb01 \u2460 \u1e9b\u0323 \uac00 \u1100\u1161 \u212b",  # forms that normalizers change
    "Falsches Üben von Xylophonmusik quält jeden größeren Zwerg",
    "Съешь же ещё этих мягких французских булок",
    "いろはにほへと 漢字かな交じり文 中文分詞測試 한국어 문장",
    "שלום עולם مرحبا بالعالم नमस्ते दुनिया สวัสดี",
    "😀👩‍👩‍👧‍👦🏳️‍🌈👍🏽 \U0001f1e9\U0001f1ea ⚡️",
    "\x00\x01\x7f\x85\u2028\ufeff\ufffd\U0010ffff",
    "a" * 300,
    "ab " * 200,
    "\n" * 50 + " " * 70 + "\t" * 9,
    "!?.,;:" * 20 + "---===***___",
    "The quick brown fox jumps over the lazy dog. " * 12,
)


def _probes(added_tokens: Sequence[str]) -> Iterator[str]:
    yield from _PROBES
    # Added tokens are where engines differ: flags that swallow spaces, match only whole words, or only
    # before normalization.
    for token in added_tokens[:_MAX_PROBED_TOKENS]:
        yield f"a{token}b {token} c\n{token}\n{token}{token} {token.upper()}{token[:-1]}"
    yield " ".join(added_tokens[:_MAX_PROBED_TOKENS])


_MAX_PROBED_TOKENS: Final = 256  # bounds start-up time; tokenizers reserve hundreds of unused ones


def first_mismatch(
    reference: TokenizerEngine, candidate: TokenizerEngine, added_tokens: Sequence[str]
) -> int | None:
    """The number of the first probe on which the candidate's ids differ or fail; None where none does."""
    for number, text in enumerate(_probes(added_tokens)):
        for special in (False, True):
            try:
                expected = reference.encode(text, add_special_tokens=special)
                if candidate.encode(text, add_special_tokens=special) != expected:
                    return number
            except EngineError:
                return number
    return None
