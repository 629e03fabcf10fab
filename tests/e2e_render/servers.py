"""Both servers on loopback: vLLM's render server, and tokenext with its HTTP port, of one model."""

import json
import sys
from pathlib import Path
from typing import Final

from loadtests.stack.probes import LOOPBACK, http_answers
from loadtests.stack.processes import ProcessSpec
from tests.e2e_render.asked import NAME
from tests.e2e_vllm.environment import VllmEnvironment
from tests.e2e_vllm.model import MAX_LENGTH

__all__ = ["render_server", "tokenext_server"]

# Its tool parser is there so that tools can be asked for at all.
_FLAGS: Final = ("--dtype", "bfloat16", "--enable-auto-tool-choice", "--tool-call-parser", "hermes")


def render_server(environment: VllmEnvironment, model: Path, port: int, cache: Path) -> ProcessSpec:
    """It is ready after half a minute."""
    return ProcessSpec(
        name="vllm-render",
        command=(
            *("nice", "-n", "10", str(environment.program("vllm")), "launch", "render", str(model)),
            *("--served-model-name", NAME, "--host", LOOPBACK, "--port", str(port)),
            *("--max-model-len", str(MAX_LENGTH), *_FLAGS),
        ),
        env={
            "VLLM_HOST_IP": LOOPBACK,
            "GLOO_SOCKET_IFNAME": "lo",
            "HF_HUB_OFFLINE": "1",
            "VLLM_NO_USAGE_STATS": "1",
            "VLLM_CACHE_ROOT": str(cache),
            "VLLM_CONFIG_ROOT": str(cache),
        },
        ready=http_answers(f"http://{LOOPBACK}:{port}/health"),
    )


def tokenext_server(model: Path, port: int, folder: Path) -> ProcessSpec:
    """With everything at its defaults, caches too, but for a deadline that a busy machine can keep."""
    folder.mkdir(parents=True, exist_ok=True)
    settings = folder / "tokenext.yaml"
    settings.write_text(
        json.dumps(
            {
                "listen": f"unix:{folder / 'tokenext.sock'}",
                "http": {"listen": f"{LOOPBACK}:{port}"},
                "limits": {"deadline_ms": 60_000},
                "models": [{"name": NAME, "source": str(model), "profile": "vllm", "max_length": MAX_LENGTH}],
            }
        ),
        "utf-8",
    )
    return ProcessSpec(
        name="tokenext",
        command=(sys.executable, "-m", "tokenext", "serve", "--config", str(settings)),
        ready=http_answers(f"http://{LOOPBACK}:{port}/health"),
    )
