"""`make fuzz-http`: requests made of the HTTP port's own OpenAPI document, against a real tokenext."""

import argparse
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from loadtests.stack.probes import LOOPBACK, free_ports, http_answers
from loadtests.stack.processes import ProcessSpec, StartError, Supervisor
from tests.tokenext.model_dirs import write_model

START_SECONDS: Final = 60.0
RUN_SECONDS: Final = 3600.0
# What holds for any request. Not whether one is taken: types are lax and meanings are checked, as in vLLM.
CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
)
_GENERATED: Final = re.compile(r"(\d+) generated")
NOTES: Final = """\
No answer may be a 5xx, or one that the document does not describe. A finding is printed with the request.

exit status: 0 nothing was found, 1 something was, 2 schemathesis is not installed
"""


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if find_spec("schemathesis") is None:
        print("fuzz-http: schemathesis is not installed: pip install -e '.[fuzz-http]'", file=sys.stderr)
        return 2
    with TemporaryDirectory() as scratch:
        folder = Path(scratch)
        (port,) = free_ports(1)
        supervisor = Supervisor(folder / "logs")
        try:
            (server,) = [supervisor.start(_server(folder, port))]
            supervisor.wait_ready([server], deadline_seconds=START_SECONDS, on_ready=lambda _: None)
            done = _fuzz(port, options)
            running = server.running
            tail = server.tail()
        except StartError as error:
            print(f"fuzz-http: {error}", file=sys.stderr)
            return 1
        finally:
            supervisor.stop()
    if done.returncode:
        print(done.stdout)
    if not running:
        print(f"tokenext ended:\n{tail}")
    generated = _GENERATED.search(done.stdout)
    holds = done.returncode == 0 and running and generated is not None
    count = generated[1] if generated else "no"
    print(f"fuzz-http: {count} requests, seed {options.seed}: {'nothing found' if holds else 'FAILED'}")
    return 0 if holds else 1


def _server(folder: Path, port: int) -> ProcessSpec:
    """Any model will do; its profile is vLLM's, as that of clients of this API is."""
    model = {
        "name": "m",
        "source": str(write_model(folder / "model")),
        "profile": "vllm",
        "max_length": 4096,
        "block_hashes": {"scheme": "vllm-sha256-cbor", "block_size": 4},
    }
    settings = folder / "tokenext.yaml"
    settings.write_text(
        json.dumps(
            {
                "listen": f"unix:{folder / 'tokenext.sock'}",
                "http": {"listen": f"{LOOPBACK}:{port}"},
                "limits": {"deadline_ms": 30_000},
                "models": [model],
            }
        ),
        "utf-8",
    )
    return ProcessSpec(
        name="tokenext",
        command=(sys.executable, "-m", "tokenext", "serve", "--config", str(settings)),
        ready=http_answers(f"http://{LOOPBACK}:{port}/health"),
    )


def _fuzz(port: int, options: argparse.Namespace) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        (
            *(str(Path(sys.executable).with_name("schemathesis")), "run"),
            f"http://{LOOPBACK}:{port}/openapi.json",
            *("--checks", ",".join(CHECKS), "--continue-on-failure", "--no-color"),
            *("--max-examples", str(options.examples), "--seed", str(options.seed)),
            *("--generation-database", "none"),
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=RUN_SECONDS,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz_http",
        description=__doc__,
        epilog=NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--examples", type=int, default=300, metavar="N", help="of each operation (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the requests (default: %(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
