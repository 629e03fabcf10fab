"""Both servers on loopback: vLLM's render server, and tokenext with its HTTP port, of one model."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from loadtests.stack.probes import LOOPBACK, http_answers
from loadtests.stack.processes import ProcessSpec
from tests.e2e_render.asked import NAME
from tests.e2e_vllm.environment import VllmEnvironment
from tests.e2e_vllm.vllm_server import on_loopback
from tokenext.generation import GenerationConfig

__all__ = ["render_server", "tokenext_server"]

# Its tool parser is there so that tools can be asked for at all.
_FLAGS: Final = ("--dtype", "bfloat16", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")


def render_server(
    environment: VllmEnvironment,
    model: Path,
    port: int,
    cache: Path,
    *,
    max_length: int | None = None,
    generation_config: GenerationConfig = GenerationConfig.AUTO,
) -> ProcessSpec:
    """It is ready after half a minute. `max_length` may be more than the model was made for: none is run."""
    length = () if max_length is None else ("--max-model-len", str(max_length))
    return ProcessSpec(
        name="vllm-render",
        command=(
            *("nice", "-n", "10", str(environment.program("vllm")), "launch", "render", str(model)),
            *("--served-model-name", NAME, "--host", LOOPBACK, "--port", str(port)),
            *("--generation-config", generation_config.value, *length, *_FLAGS),
        ),
        env=on_loopback(cache) | {"VLLM_ALLOW_LONG_MAX_MODEL_LEN": "1"},
        ready=http_answers(f"http://{LOOPBACK}:{port}/health"),
    )


def tokenext_server(
    model: Path, port: int, folder: Path, **more: str | Mapping[str, str | int]
) -> ProcessSpec:
    """With everything at its defaults, caches too, but for a deadline that a busy machine can keep.

    `more` are settings of its model.
    """
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "tokenext.yaml"
    settings.write_text(
        json.dumps(
            {
                "listen": f"unix:{folder / 'tokenext.sock'}",
                "http": {"listen": f"{LOOPBACK}:{port}"},
                "limits": {"deadline_ms": 60_000},
                "models": [{"name": NAME, "source": str(model), "profile": "vllm", **more}],
            }
        ),
        "utf-8",
    )
    return ProcessSpec(
        name="tokenext",
        command=(sys.executable, "-m", "tokenext", "serve", "--config", str(settings)),
        ready=http_answers(f"http://{LOOPBACK}:{port}/health"),
    )
