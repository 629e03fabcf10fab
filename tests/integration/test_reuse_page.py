"""docs/reuse.md: what it tells people to write does what it says, on real parts."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from loadtests.stack import services
from loadtests.stack.chain import ChainOptions
from loadtests.stack.envoy_config import UnixAddress
from loadtests.stack.probes import free_ports
from loadtests.stack.processes import Supervisor
from tests.integration.one_listener import TYPES, bootstrap, cluster, envoy, http2
from tests.integration.raw_http import exchange

pytestmark = pytest.mark.integration

PAGE = (Path(__file__).parents[2] / "docs" / "reuse.md").read_text()
NAME = "qwen3"  # of the model, on the page


def block(language: str, mark: str) -> str:
    """The page's only block in this language that holds `mark`."""
    blocks = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    (found,) = (each for each in blocks if mark in each)
    return found


@pytest.fixture(scope="module")
def model_folder():
    return ChainOptions().model.folder


@pytest.fixture(scope="module")
def tokenext(tmp_path_factory, model_folder):
    """The address of a running tokenext with a model of the page's name."""
    folder = tmp_path_factory.mktemp("tokenext")
    address = UnixAddress(str(folder / "tokenext.sock"))
    (admin,) = free_ports(1)
    model = {"name": NAME, "source": str(model_folder)}
    with Supervisor(folder) as supervisor:
        process = supervisor.start(
            services.tokenext(
                folder,
                "tokenext",
                ChainOptions().model,
                address,
                admin,
                handoff="none",
                settings={"models": [model]},
            )
        )
        supervisor.wait_ready([process], deadline_seconds=60)
        yield address


def test_the_python_program_prints_the_ids_of_its_prompt(tokenext, model_folder):
    program = block("python", "TokenizationClient")
    assert len([line for line in program.splitlines() if line]) <= 10
    asked = program.replace("unix:/run/tokenext.sock", str(tokenext))
    done = subprocess.run(
        [sys.executable, "-c", asked], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.stderr, done.returncode) == ("", 0)
    expected = Tokenizer.from_file(str(model_folder / "tokenizer.json")).encode("Hello").ids
    assert done.stdout == f"{expected}\n"


@pytest.fixture(scope="module")
def upstream(tmp_path_factory):
    """The address of a server that reports the headers that reached it."""
    (port,) = free_ports(1)
    folder = tmp_path_factory.mktemp("upstream")
    with Supervisor(folder) as supervisor:
        supervisor.wait_ready([supervisor.start(services.echo_server("echo", port))], deadline_seconds=30)
        yield f"127.0.0.1:{port}"


def lua_behind_tokenext(tokenext, upstream, **processing):
    """Envoy's configuration with the page's Lua, as the page says: after tokenext."""
    processor = {
        "@type": f"{TYPES}.filters.http.ext_proc.v3.ExternalProcessor",
        "grpc_service": {"envoy_grpc": {"cluster_name": "tokenext"}},
        "processing_mode": {"response_header_mode": "SKIP", **processing},
        "metadata_options": {"receiving_namespaces": {"untyped": ["tokenext"]}},
        "message_timeout": "5s",
    }
    lua = {
        "@type": f"{TYPES}.filters.http.lua.v3.Lua",
        "default_source_code": {"inline_string": block("lua", "dynamicMetadata")},
    }
    return bootstrap(
        [{"name": "tokenext", "typed_config": processor}, {"name": "lua", "typed_config": lua}],
        [cluster("tokenext", str(tokenext), **http2()), cluster("upstream", upstream)],
        {"route": {"cluster": "upstream"}},
    )


@pytest.mark.parametrize(
    "processing",
    [
        {"request_body_mode": "BUFFERED"},
        {"request_body_mode": "FULL_DUPLEX_STREAMED", "request_trailer_mode": "SEND"},
    ],
    ids=["buffered", "full duplex"],
)
async def test_the_lua_lines_tell_the_upstream_how_many_tokens_a_prompt_has(
    tokenext, upstream, model_folder, tmp_path, processing
):
    tokenizer = Tokenizer.from_file(str(model_folder / "tokenizer.json"))
    config = lua_behind_tokenext(tokenext, upstream, **processing)
    made_up = {"x-prompt-tokens": "7000"}
    async with envoy(tmp_path, config) as port:
        for text in ("Hello", "The lighthouse on the northern cape. " * 200):
            body = json.dumps({"model": NAME, "prompt": text}).encode()
            answer = await exchange(f"http://127.0.0.1:{port}/v1/completions", body, headers=made_up)
            assert answer.status == 200
            assert answer.json()["headers"]["x-prompt-tokens"] == str(len(tokenizer.encode(text).ids))
        answer = await exchange(f"http://127.0.0.1:{port}/v1/embeddings", b"{}", headers=made_up)
    assert answer.status == 200
    assert "x-prompt-tokens" not in answer.json()["headers"]
