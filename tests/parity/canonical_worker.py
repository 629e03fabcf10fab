"""Runs in the oracle's own environment: the canonicalizer of `tokenext bundle`, beside transformers' own ids.

Usage: python canonical_worker.py REPOSITORY MODEL_FOLDER OUTPUT. Texts come as a JSON list on standard input;
the tokenizer goes to OUTPUT, and each text's ids, with and without special tokens, to standard output.
"""

import json
import sys
from pathlib import Path

from transformers import AutoTokenizer


def main() -> None:
    repository, folder, output = sys.argv[1:]
    sys.path.append(repository)
    from tokenext.canonical import ThroughTransformers

    canonical = ThroughTransformers().read(Path(folder))
    if canonical != ThroughTransformers().read(Path(folder)):
        sys.exit("two readings differ")
    Path(output).write_bytes(canonical.tokenizer_json)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    ids = [
        [tokenizer(text, add_special_tokens=special)["input_ids"] for special in (False, True)]
        for text in json.load(sys.stdin)
    ]
    json.dump({"versions": dict(canonical.versions), "ids": ids}, sys.stdout)


if __name__ == "__main__":
    main()
