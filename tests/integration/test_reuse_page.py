"""docs/reuse.md: what it tells people to write does what it says, on real parts."""

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
