"""fastokens: the fast engine, where it takes a tokenizer (facts/tokenization.md)."""

from typing import Final

import fastokens

from extproc.token_metadata import TokenIds
from tokenext.engine import EngineError
from tokenext.engines.panic import is_library_failure

__all__ = ["FastEngine", "UnsupportedTokenizerError"]


class UnsupportedTokenizerError(ValueError):
    """fastokens does not take this tokenizer; the message is its own."""


class FastEngine:
    name: Final = "fastokens"
    quick: Final = True

    def __init__(self, tokenizer_json: bytes) -> None:
        """Load a tokenizer.json. Raises UnsupportedTokenizerError."""
        try:
            self._tokenizer = fastokens.Tokenizer.from_json_str(tokenizer_json.decode())
        except BaseException as error:
            if not is_library_failure(error):
                raise
            raise UnsupportedTokenizerError(str(error)) from None
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        del isolation  # words are remembered, texts are not
        try:
            # Already unsigned 32 bit integers in little-endian order.
            packed, _ = self._tokenizer.encode_batch_flat([text], add_special_tokens=add_special_tokens)
        except BaseException as error:
            if not is_library_failure(error):
                raise
            raise EngineError("fastokens failed on a text") from None
        return TokenIds(packed)
