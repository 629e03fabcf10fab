"""The way back by Hugging Face's `tokenizers`, loaded when it is first asked for: most services never do."""

from collections.abc import Sequence
from threading import Lock
from typing import Final

from tokenizers import Tokenizer

__all__ = ["HuggingFaceVocabulary"]


class HuggingFaceVocabulary:
    """Of one tokenizer.json, which was loaded before without an error. May be asked from any thread."""

    def __init__(self, tokenizer_json: bytes) -> None:
        self._tokenizer_json: Final = tokenizer_json
        self._lock: Final = Lock()
        self._tokenizer: Tokenizer | None = None

    def size(self) -> int:
        tokenizer = self._loaded()
        added = max(tokenizer.get_added_tokens_decoder(), default=-1) + 1
        return max(added, tokenizer.get_vocab_size(with_added_tokens=False))

    def text(self, ids: Sequence[int]) -> str:
        text: str = self._loaded().decode(list(ids), skip_special_tokens=False)
        return text

    def pieces(self, ids: Sequence[int]) -> list[str]:
        tokenizer = self._loaded()
        return [tokenizer.id_to_token(each) or "" for each in ids]

    def _loaded(self) -> Tokenizer:
        with self._lock:
            if self._tokenizer is None:
                self._tokenizer = Tokenizer.from_buffer(self._tokenizer_json)
            return self._tokenizer
