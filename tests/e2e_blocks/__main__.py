"""`make e2e-blocks`: does a running vLLM publish the block hashes that tokenext tells of the same prompts?"""

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any, Final
from urllib.request import Request, urlopen

import msgspec
import zmq

from loadtests.stack.probes import LOOPBACK, free_ports
from loadtests.stack.processes import StartError, Supervisor
from tests.e2e_render.servers import tokenext_server
from tests.e2e_vllm import environment, model, vllm_server
from tests.parity.fetch import FetchError
from tokenext.block_hashes import Scheme
from tokenext.render_api.hashes import HEADER, KEY

REPOSITORY: Final = Path(__file__).resolve().parents[2]
CACHE: Final = REPOSITORY / ".cache" / "e2e-vllm"
START_SECONDS: Final = 600.0
SETTLE_SECONDS: Final = 20.0
VOCABULARY: Final = 150_000
_HASHES: Final = {"scheme": Scheme.VLLM_SHA256_CBOR.value, "block_size": vllm_server.BLOCK_SIZE}
EVENTS: Final = {"enable_kv_cache_events": True, "publisher": "zmq"}


def prompts(count: int, seed: int) -> list[tuple[list[int], str]]:
    """Ids and a cache salt, "" for none: some share prefixes, none is shorter than a block."""
    random = Random(seed)
    made: list[tuple[list[int], str]] = []
    for number in range(count):
        before = random.choice(made)[0] if made and random.random() < 0.4 else []
        ids = [*before[:1024], *(random.randrange(VOCABULARY) for _ in range(random.randint(40, 400)))]
        made.append((ids, "" if number % 4 else f"tenant-{number % 8}"))
    return made


def expected(port: int, asked: Sequence[tuple[list[int], str]]) -> set[int]:
    """Of our answers, as vLLM publishes hashes unless it is told not to: their last 8 bytes, a number."""
    answers = [_post(port, "/v1/completions/render", ids, salt, {HEADER: "true"}) for ids, salt in asked]
    return {int(each[-16:], 16) for answer in answers for each in answer[0][KEY]["hashes"]}


def _post(port: int, path: str, ids: list[int], salt: str, headers: Mapping[str, str]) -> Any:
    body = {"model": model.NAME, "prompt": ids, "max_tokens": 1, **({"cache_salt": salt} if salt else {})}
    request = Request(
        f"http://{LOOPBACK}:{port}{path}",
        json.dumps(body).encode(),
        {"content-type": "application/json", **headers},
    )
    with urlopen(request, timeout=120) as answer:
        return json.load(answer)


def stored(message: bytes) -> set[int]:
    """The hashes of blocks that a batch of events announces."""
    batch = msgspec.msgpack.decode(message)
    events = batch["events"] if isinstance(batch, Mapping) else batch[1]
    return {
        each
        for event in events
        if isinstance(event, Mapping) and event["type"] == "BlockStored"
        for each in event["block_hashes"]
    }


def published(events: "zmq.Socket[bytes]", wanted: set[int]) -> set[int]:
    """What is announced until all that is wanted was, or nothing comes any more."""
    found: set[int] = set()
    ends = time.monotonic() + SETTLE_SECONDS
    while not wanted <= found and time.monotonic() < ends:
        if events.poll(500):
            found |= stored(events.recv_multipart()[-1])
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    port, http_port = free_ports(2)
    logs = options.cache / "logs-blocks"
    supervisor = Supervisor(logs)
    scratch = tempfile.mkdtemp(prefix="blocks-")  # such a path has room for about 100 characters
    asked = prompts(options.prompts, options.seed)
    wanted, found = set[int](), set[int]()
    try:
        vllm = environment.prepare(options.cache / "venv", print)
        folders = model.make(options.cache, vllm, print)
        spec = vllm_server.spec(vllm, folders.engine, port, options.cache / "vllm")
        # A path, which vLLM binds; it would bind a port on all interfaces or on none.
        address = f"ipc://{scratch}/events"
        publishing = json.dumps({**EVENTS, "endpoint": address})
        command = (
            *spec.command,
            *("--prefix-caching-hash-algo", "sha256_cbor", "--kv-events-config", publishing),
        )
        with zmq.Context() as context, context.socket(zmq.SUB) as events:
            events.setsockopt(zmq.SUBSCRIBE, b"")
            events.connect(address)
            print("starting tokenext and vLLM")
            ours = tokenext_server(
                folders.bundle, http_port, options.cache / "tokenext-blocks", block_hashes=_HASHES
            )
            supervisor.wait_ready(
                [supervisor.start(each) for each in (ours, replace(spec, command=command))],
                deadline_seconds=START_SECONDS,
            )
            wanted = expected(http_port, asked)
            for ids, salt in asked:
                _post(port, "/v1/completions", ids, salt, {})
            found = published(events, wanted)
    except (environment.InstallError, FetchError, FileNotFoundError) as error:
        print(f"e2e-blocks: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"e2e-blocks: {error}", file=sys.stderr)
        return 1
    finally:
        supervisor.stop(vllm_server.STOP_SECONDS)
        shutil.rmtree(scratch, ignore_errors=True)
    missing, foreign = len(wanted - found), len(found - wanted)
    print(
        f"e2e-blocks: {'ok' if not missing and not foreign else 'FAILED'}: {len(asked)} prompts, "
        f"{len(wanted)} blocks, {missing} that vLLM did not publish, {foreign} published that are not ours"
    )
    return 1 if missing or foreign or not wanted else 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e_blocks",
        description=__doc__,
        epilog="exit status: 0 equal, 1 not, 2 it cannot be run here",
    )
    parser.add_argument("--prompts", type=int, default=60, metavar="N", help="(default: %(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts (default: %(default)s)")
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help="where everything is kept (default: .cache/e2e-vllm)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
