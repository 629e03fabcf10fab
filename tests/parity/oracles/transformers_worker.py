"""Runs in the oracle's own environment: reads requests as JSON lines, answers with transformers' token ids.

It knows nothing of this project. What a request means here is what a caller of transformers would write:
messages and tools as they are, template arguments as keyword arguments, a completion's prompt through the
tokenizer's call, with `add_special_tokens` where the request has it.
"""

import json
import sys
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer


def chat(tokenizer: Any, body: dict[str, Any]) -> list[int]:
    unfinished = bool(body.get("continue_final_message"))
    if unfinished and body.get("add_generation_prompt"):
        raise ValueError("continue_final_message and add_generation_prompt exclude each other")
    arguments = body.get("chat_template_kwargs") or body.get("chat_template_args") or {}
    given = {
        "tools": body.get("tools"),
        "documents": body.get("documents"),
        "continue_final_message": unfinished,
        "add_generation_prompt": not unfinished and body.get("add_generation_prompt") is not False,
    }
    # An argument that is given twice is a TypeError, as in any call.
    encoded = tokenizer.apply_chat_template(
        body["messages"], tokenize=True, return_dict=True, **given, **arguments
    )
    return list(encoded["input_ids"])


def completion(tokenizer: Any, body: dict[str, Any]) -> list[int]:
    prompt = body["prompt"]
    if not isinstance(prompt, str) or not prompt:
        raise ValueError("one prompt at a time, as text")
    given = {"add_special_tokens": body["add_special_tokens"]} if "add_special_tokens" in body else {}
    return list(tokenizer(prompt, **given)["input_ids"])


def canonical(tokenizer: Any, path: str) -> None:
    """Write the tokenizer as transformers runs it, which may differ from the model's own tokenizer.json."""
    Path(path).write_text(tokenizer.backend_tokenizer.to_str(), "utf-8")


def answer(tokenizers: dict[str, Any], request: dict[str, Any]) -> dict[str, Any]:
    folder = request["folder"]
    if folder not in tokenizers:
        tokenizers[folder] = AutoTokenizer.from_pretrained(folder)
    if request["do"] == "canonical":
        canonical(tokenizers[folder], request["path"])
        return {"ids": []}
    try:
        body = json.loads(request["body"])
        ids = (chat if request["do"] == "chat" else completion)(tokenizers[folder], body)
    # Whatever a template or a tokenizer raises is the oracle's refusal of this request.
    except Exception as error:  # noqa: BLE001  # as said
        return {"detail": f"{type(error).__name__}: {error}"[:300]}
    return {"ids": ids}


def main() -> None:
    tokenizers: dict[str, Any] = {}
    for line in sys.stdin:
        sys.stdout.write(json.dumps(answer(tokenizers, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
