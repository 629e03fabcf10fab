"""Hugging Face `tokenizers`: the reference engine, for every tokenizer.json there is."""

from array import array
from typing import Final

from tokenizers import Tokenizer

from extproc.token_metadata import TokenIds
from tokenext.engine import EngineError
from tokenext.engines.panic import is_library_failure

__all__ = ["HuggingFaceEngine", "TokenizerFileError"]


class TokenizerFileError(ValueError):
    """A tokenizer.json that the library does not take; the message is the library's."""


class HuggingFaceEngine:
    name: Final = "huggingface"
    quick: Final = False  # half a microsecond for a byte

    def __init__(self, tokenizer_json: bytes) -> None:
        """Load a tokenizer.json. Raises TokenizerFileError."""
        try:
            self._tokenizer = Tokenizer.from_buffer(tokenizer_json)
        except BaseException as error:
            if not is_library_failure(error):
                raise
            raise TokenizerFileError(str(error)) from None
        # A tokenizer.json may carry the settings of its training; a prompt is encoded whole.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()

    @property
    def added_tokens(self) -> tuple[str, ...]:
        """Texts that become one id wherever they stand."""
        added = self._tokenizer.get_added_tokens_decoder()
        return tuple(added[number].content for number in sorted(added))

    def encode(self, text: str, *, add_special_tokens: bool, isolation: str = "") -> TokenIds:
        del isolation  # words are remembered, texts are not
        # encode() keeps the GIL for its whole run, encode_batch_fast() does not (facts/tokenization.md).
        try:
            (encoding,) = self._tokenizer.encode_batch_fast([text], add_special_tokens=add_special_tokens)
            return TokenIds.pack(array("I", encoding.ids))
        except BaseException as error:
            if not is_library_failure(error):
                raise
            raise EngineError("tokenizers failed on a text") from None
