"""vLLM as a process on loopback, as a deployment of this model would run it."""

from pathlib import Path
from typing import Final

from loadtests.stack.probes import LOOPBACK, http_answers
from loadtests.stack.processes import ProcessSpec
from tests.e2e_vllm.environment import VllmEnvironment
from tests.e2e_vllm.model import MAX_LENGTH, NAME

__all__ = ["BLOCK_SIZE", "FLAGS", "STOP_SECONDS", "on_loopback", "spec"]

BLOCK_SIZE: Final = 32
STOP_SECONDS: Final = 30.0

FLAGS: Final = (
    *("--dtype", "bfloat16", "--enforce-eager"),
    *("--max-model-len", str(MAX_LENGTH), "--block-size", str(BLOCK_SIZE), "--enable-prefix-caching"),
    "--enable-prompt-tokens-details",
    # Room for every prompt at once: cut into chunks, a request with `seed` ends vLLM 0.32 on the CPU.
    *("--max-num-batched-tokens", str(8 * MAX_LENGTH)),
    *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
    "--enable-scale-out",  # the render endpoints, which `tokenext verify` asks
)


def spec(environment: VllmEnvironment, model: Path, port: int, cache: Path) -> ProcessSpec:
    """It is ready when /health answers, which takes about a minute."""
    return ProcessSpec(
        name="vllm",
        command=(
            *("nice", "-n", "10", str(environment.program("vllm")), "serve", str(model)),
            *("--served-model-name", NAME, "--host", LOOPBACK, "--port", str(port), *FLAGS),
        ),
        # GB; the default is a share of all memory.
        env=on_loopback(cache) | {"VLLM_CPU_KVCACHE_SPACE": "1"},
        ready=http_answers(f"http://{LOOPBACK}:{port}/health"),
    )


def on_loopback(cache: Path) -> dict[str, str]:
    """The environment of a vLLM that asks nobody and listens nowhere else, whatever it serves."""
    return {
        # Its helpers listen where it says, which by default is an address of this machine.
        "VLLM_HOST_IP": LOOPBACK,
        "GLOO_SOCKET_IFNAME": "lo",
        "HF_HUB_OFFLINE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_CACHE_ROOT": str(cache),
        "VLLM_CONFIG_ROOT": str(cache),
    }
