"""Train the stack's own model directory: `python -m loadtests.stack.train_model`.

The directory holds what a model server's front end and tokenext read (tokenizer, chat template,
configuration) and no weights: the stack's workers only pretend to compute. model/README.md names the text.
Training is deterministic: the same Python version gives the same bytes.
"""

import argparse
import ast
import json
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

HERE: Final = Path(__file__).parent
VOCABULARY_SIZE: Final = 4096
MAX_POSITIONS: Final = 131_072

# Not library code of the language's own: other licences, or text nobody would read.
SKIPPED_FOLDERS: Final = frozenset(
    {"dist-packages", "ensurepip", "idlelib", "lib2to3", "site-packages", "test", "tests", "turtledemo"}
)

END_OF_TEXT: Final = "<|endoftext|>"
TURN_START: Final = "<|im_start|>"
TURN_END: Final = "<|im_end|>"
SPECIAL_TOKENS: Final = (END_OF_TEXT, TURN_START, TURN_END)
# Atomic, but kept when text is decoded: parsers of tool calls and reasoning look for them.
MARKUP_TOKENS: Final = (
    "<think>",
    "</think>",
    "<tool_call>",
    "</tool_call>",
    "<tool_response>",
    "</tool_response>",
)

# Words with the one character before them, single digits, runs of signs, line ends, other white space.
WORDS: Final = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def corpus() -> Iterator[str]:
    """The dialogue beside this file, then the docstrings of the Python standard library in path order."""
    yield from (HERE / "dialogue.txt").read_text(encoding="utf-8").split("\n\n")
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if SKIPPED_FOLDERS.isdisjoint(path.relative_to(library).parts):
            yield from _docstrings(path)


def _docstrings(path: Path) -> Iterator[str]:
    try:
        module = ast.parse(path.read_bytes())
    except SyntaxError:  # a template, not a module
        return
    for node in ast.walk(module):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node)
            if docstring:
                yield docstring


def train() -> Tokenizer:
    """A byte-level BPE: every text encodes and decodes to itself, up to NFC."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(WORDS), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = len(SPECIAL_TOKENS) + len(MARKUP_TOKENS)
    tokenizer.train_from_iterator(
        corpus(),
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE - added,
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    tokenizer.add_special_tokens(
        [AddedToken(text, special=True, normalized=False) for text in SPECIAL_TOKENS]
    )
    tokenizer.add_tokens([AddedToken(text, special=False, normalized=False) for text in MARKUP_TOKENS])
    return tokenizer


def tokenizer_config() -> dict[str, object]:
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": MAX_POSITIONS,
        "bos_token": None,
        "eos_token": TURN_END,
        "pad_token": END_OF_TEXT,
        "unk_token": None,
        "add_bos_token": False,
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "additional_special_tokens": [TURN_START, TURN_END],
        "chat_template": (HERE / "chat_template.jinja").read_text(encoding="utf-8"),
    }


def model_config(tokenizer: Tokenizer) -> dict[str, object]:
    """The shape of a small Qwen3: what front ends read of it are the lengths and the token ids."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCABULARY_SIZE,
        "max_position_embeddings": MAX_POSITIONS,
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "bos_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "eos_token_id": tokenizer.token_to_id(TURN_END),
    }


def generation_config(tokenizer: Tokenizer) -> dict[str, object]:
    return {
        "bos_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "eos_token_id": [tokenizer.token_to_id(TURN_END), tokenizer.token_to_id(END_OF_TEXT)],
        "pad_token_id": tokenizer.token_to_id(END_OF_TEXT),
        "do_sample": True,
        "temperature": 0.7,
    }


def write_model(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train()
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    documents = {
        "tokenizer_config.json": tokenizer_config(),
        "config.json": model_config(tokenizer),
        "generation_config.json": generation_config(tokenizer),
    }
    for name, document in documents.items():
        text = json.dumps(document, indent=2, ensure_ascii=False)
        (folder / name).write_text(text + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m loadtests.stack.train_model", description=__doc__)
    parser.add_argument(
        "--output", type=Path, default=HERE / "model", help="folder to write (default: %(default)s)"
    )
    write_model(parser.parse_args().output)


if __name__ == "__main__":
    main()
