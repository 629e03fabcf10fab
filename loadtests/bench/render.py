"""`python -m loadtests.bench.render`: see `--help`."""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from rich.console import Console
from rich.table import Table

from loadtests.bench.http import Connection
from loadtests.bench.processes_cost import cpu_seconds, resident_megabytes
from loadtests.bench.results import Ratio, Results
from loadtests.bench.workload import KINDS, workload
from loadtests.stack import services
from loadtests.stack.envoy_config import UnixAddress
from loadtests.stack.model_source import Model
from loadtests.stack.probes import LOOPBACK, free_ports
from loadtests.stack.processes import ManagedProcess, StartError, Supervisor
from tests.e2e_render.servers import render_server
from tests.e2e_vllm import environment, model
from tests.parity.fetch import FetchError

FOLDER = Path("loadtests/results")
CACHE = Path(".cache/e2e-vllm")
PATH = "/v1/chat/completions/render"
SIZES = {"1k": 1_000, "8k": 8_000, "28k": 28_000, "112k": 112_000}
REQUESTS = {"1k": 40, "8k": 25, "28k": 15, "112k": 10}
MAX_LENGTH = 131_072
CHARS_PER_TOKEN = 4.4
START_SECONDS = 300.0
OURS, THEIRS = "tokenext", "vllm"
DESCRIPTION = """\
tokenext's render API beside vLLM's own render server, on Qwen3's tokenizer: CPU time per request of each
process, requests to both in turn, and the ids of each answer compared. Writes render.json; the last line says
whether all bounds hold. vLLM is installed into .cache/e2e-vllm by the first run (2.5 GB, some minutes)."""
EXAMPLES = """\
examples:
  python -m loadtests.bench.render                 about three minutes, once vLLM is there
  python -m loadtests.bench.render --share 0.3     a quick look

exit status: 0 all bounds hold, 1 one is missed or a process did not start, 2 it cannot be run here"""


@dataclass(slots=True)
class Server:
    url: str
    process: ManagedProcess
    milliseconds: list[float] = field(default_factory=list)  # of CPU, for each request that counts
    seconds: list[float] = field(default_factory=list)


@contextmanager
def served(folder: Path, vllm: environment.VllmEnvironment, engine: Path) -> Iterator[dict[str, Server]]:
    port, admin, theirs = free_ports(3)
    with Supervisor(folder) as supervisor:
        ours = supervisor.start(
            services.tokenext(
                folder,
                "tokenext",
                Model(model.NAME, engine),
                UnixAddress(str(folder / "t.sock")),
                admin,
                handoff="none",
                settings={
                    "http": {"listen": f"{LOOPBACK}:{port}"},
                    "models": [
                        {
                            "name": model.NAME,
                            "source": str(engine),
                            "profile": "vllm",
                            "max_length": MAX_LENGTH,
                        }
                    ],
                },
            )
        )
        render = supervisor.start(render_server(vllm, engine, theirs, folder, max_length=MAX_LENGTH))
        supervisor.wait_ready([ours, render], deadline_seconds=START_SECONDS)
        yield {
            OURS: Server(f"http://{LOOPBACK}:{port}", ours),
            THEIRS: Server(f"http://{LOOPBACK}:{theirs}", render),
        }


def measure(servers: Mapping[str, Server], kind: str, size: str, count: int) -> int:
    """Ask both in turn; returns how many of the answers had other ids. Raises RuntimeError for no 200."""
    differing = 0
    for server in servers.values():
        server.milliseconds, server.seconds = [], []
    asks = workload(model.NAME, kind, SIZES[size], count, chars_per_token=CHARS_PER_TOKEN, max_tokens=8)
    with ExitStack() as opened:
        connections = {name: opened.enter_context(Connection(server.url)) for name, server in servers.items()}
        for ask in asks:
            ids = []
            for name, server in servers.items():
                before = cpu_seconds([server.process.pid])
                answer = connections[name].post(PATH, ask.body)
                spent = cpu_seconds([server.process.pid]) - before
                if answer.status != 200:
                    raise RuntimeError(f"{name}: status {answer.status}: {answer.body[:300]!r}")
                ids.append(json.loads(answer.body)["token_ids"])
                if ask.counts:
                    server.milliseconds.append(spent * 1e3)
                    server.seconds.append(answer.seconds)
            differing += ids[0] != ids[1]
    return differing


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    results = Results(quick=options.share < 1, model=model.NAME)
    table = Table("workload", "", "CPU ms", "p50 ms", "requests per CPU second", "vllm by ours")
    figures: dict[str, object] = {}
    differing = 0
    try:
        vllm = environment.prepare(options.cache / "venv", print)
        folders = model.make(options.cache, vllm, print)
        with (
            tempfile.TemporaryDirectory(prefix="render-") as folder,
            served(Path(folder), vllm, folders.engine) as servers,
        ):
            for kind in KINDS:
                for size, count in REQUESTS.items():
                    differing += measure(servers, kind, size, max(3, round(count * options.share)))
                    figures[f"{kind} {size}"] = _tell(servers, f"{kind} {size}", results, table)
            memory = {name: resident_megabytes(each.process.pid) for name, each in servers.items()}
    except (environment.InstallError, FetchError, FileNotFoundError) as error:
        print(f"bench-render: {error}", file=sys.stderr)
        return 2
    except StartError as error:
        print(f"bench-render: {error}", file=sys.stderr)
        return 1
    results.ratios["resident memory, ours by vLLM's"] = Ratio(
        memory[OURS] / memory[THEIRS], 1 / 3, 0.25, "lower"
    )
    results.ratios["answers with other ids"] = Ratio(differing, 0, 0, "lower", "")
    results.measurements.update({"render": figures, "resident_mb": memory, "vllm": vllm.versions()})
    results.write(options.out / "render.json")
    console.print(table)
    results.show(console)
    print(results.summary("bench-render"))
    return 1 if results.misses else 0


_BOUNDS = {"unique 28k": ("first-seen", 10.0, 40.0), "multi-turn 28k": ("turn N+1", 25.0, 100.0)}


def _tell(servers: Mapping[str, Server], what: str, results: Results, table: Table) -> dict[str, object]:
    times = median(
        theirs / ours
        for ours, theirs in zip(servers[OURS].milliseconds, servers[THEIRS].milliseconds, strict=True)
    )
    told: dict[str, object] = {"vllm_by_ours": round(times, 2)}
    for name, server in servers.items():
        cpu = median(server.milliseconds)
        told[name] = {"cpu_ms": round(cpu, 3), "p50_ms": round(median(server.seconds) * 1e3, 3)}
        table.add_row(
            what,
            name,
            f"{cpu:.2f}",
            f"{median(server.seconds) * 1e3:.2f}",
            f"{1e3 / cpu:.0f}",
            f"{times:.1f}",
        )
    if what in _BOUNDS:
        name, must, aim = _BOUNDS[what]
        results.ratios[f"{name} at 28k tokens: CPU of vLLM's render server by ours"] = Ratio(
            times, must, aim, "higher"
        )
    return told


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.render",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--share", type=float, default=1.0, metavar="X", help="of the requests (%(default)s)")
    parser.add_argument("--cache", type=Path, default=CACHE, metavar="DIR", help="of vLLM (%(default)s)")
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="for results (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
