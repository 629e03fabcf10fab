"""The transformers step of `tokenext bundle` on the real thing; `make parity` fetches what it needs."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.parity.fetch import CACHE, NPM_TOKENIZERS, TRANSFORMERS
from tokenext.engines.huggingface import HuggingFaceEngine

REPOSITORY = Path(__file__).resolve().parents[2]
PYTHON = CACHE / f"venv-transformers-{TRANSFORMERS}" / "bin" / "python"
TEXTS = [
    "",
    "Hello, world!",
    "  leading, trailing \n",
    "<s>  a </s>b <|im_end|> c<|eot_id|>  d",
    "e\u0301 \ufb01 漢字 한국어 😀 \u200d\x00",
    "def f(x):\n\treturn {'k': x ** 2}\n\n",
]

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def canonical(name: str, output: Path) -> tuple[bytes, dict]:
    folder = CACHE / "tokenizers" / name
    if not PYTHON.exists() or not folder.is_dir():
        pytest.skip("transformers or a tokenizer is not in .cache/parity: run `make parity` once")
    worker = Path(__file__).with_name("canonical_worker.py")
    done = subprocess.run(
        [str(PYTHON), str(worker), str(REPOSITORY), str(folder), str(output)],
        input=json.dumps(TEXTS),
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return output.read_bytes(), json.loads(done.stdout)


@pytest.mark.parametrize("name", [name for name in NPM_TOKENIZERS if name != "gemma3"])
def test_a_bundled_tokenizer_gives_transformers_own_ids(name, tmp_path):
    tokenizer_json, told = canonical(name, tmp_path / "tokenizer.json")
    engine = HuggingFaceEngine(tokenizer_json)
    ours = [
        [engine.encode(text, add_special_tokens=special).as_array().tolist() for special in (False, True)]
        for text in TEXTS
    ]
    assert ours == told["ids"]
    assert told["versions"]["transformers"] == TRANSFORMERS


def test_the_step_is_needed_since_the_file_alone_has_other_ids(tmp_path):
    tokenizer_json, _ = canonical("llama2", tmp_path / "tokenizer.json")
    file = (CACHE / "tokenizers" / "llama2" / "tokenizer.json").read_bytes()
    text = "  leading, trailing \n"
    one, other = (
        HuggingFaceEngine(each).encode(text, add_special_tokens=False) for each in (tokenizer_json, file)
    )
    assert one != other
