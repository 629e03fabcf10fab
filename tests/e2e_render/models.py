"""The model of the run: that of `make e2e-vllm`, with sampling defaults of its own."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from tests.e2e_vllm import model
from tests.e2e_vllm.environment import Report, VllmEnvironment

__all__ = ["Models", "make"]

# Each is another than vLLM's, and is taken by vLLM where a request does not say; most requests do not.
DEFAULTS: Final = {
    "do_sample": True,
    "temperature": 0.6,
    "top_k": 20,
    "top_p": 0.95,
    "min_p": 0.02,
    "repetition_penalty": 1.05,
    "presence_penalty": 0.25,
    "frequency_penalty": 0.1,
    "max_new_tokens": 512,
}


@dataclass(frozen=True, slots=True)
class Models:
    """`engine` is for vLLM; `bundle` is made of it, for tokenext."""

    engine: Path
    bundle: Path


def make(folder: Path, environment: VllmEnvironment, report: Report) -> Models:
    """Make both below `folder`. Raises FetchError, InstallError."""
    made = Models(folder / "render-model", folder / "render-bundle")
    shutil.copytree(model.make(folder, environment, report).engine, made.engine, dirs_exist_ok=True)
    path = made.engine / "generation_config.json"
    own: dict[str, Any] = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps(own | DEFAULTS), "utf-8")
    environment.run("bundle", "tokenext", "bundle", str(made.engine), "-o", str(made.bundle))
    return made
