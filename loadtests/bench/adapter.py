"""`python -m loadtests.bench.adapter`: see `--help`."""

import argparse
import asyncio
import contextlib
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import grpc.aio
from envoy.service.ext_proc.v3.external_processor_pb2 import ProcessingResponse
from rich.console import Console
from rich.table import Table

from extproc import wellknown
from loadtests.bench.adapter_messages import RecordedExchange, recorded
from loadtests.bench.processes_cost import cpu_seconds
from loadtests.bench.results import Ratio, Results
from loadtests.simulate.fleet import Fleet, Pace
from loadtests.stack import services
from loadtests.stack.dynamo_parts import BLOCK_SIZE, ENDPOINT
from loadtests.stack.envoy_config import UnixAddress
from loadtests.stack.probes import free_ports
from loadtests.stack.processes import StartError, Supervisor

FOLDER = Path("loadtests/results")
_END = grpc.aio.EOF  # type: ignore[attr-defined]  # grpc-stubs lacks it
PROCESS = "/envoy.service.ext_proc.v3.ExternalProcessor/Process"
EXCHANGE_SECONDS = 20.0
ENDPOINTS = ("127.0.0.1:1", "127.0.0.1:2")  # the fleet's
STRATEGIES = ("round-robin", "internal", "dynamo")
DESCRIPTION = """\
What one request costs the adapter, in CPU time of its process, beside an ext_proc service of the same shell
that lets everything pass. Both are sent the messages that Envoy sends, over a Unix socket; requests go to all
in turn, in small batches, so that a slow moment of the machine meets them alike. "bare" is the empty service
without the token record beside the messages. Writes adapter.json; the last line says whether all bounds
hold."""
EXAMPLES = """\
examples:
  python -m loadtests.bench.adapter                     about a minute
  python -m loadtests.bench.adapter --rounds 10         a quick look

exit status: 0 all bounds hold, 1 one is missed or a process did not start"""
# Of the issue this bench was made for; the ratio is the median over rounds, so that one round may be hit.
MUST, AIM = 2.2, 1.5


@dataclass(slots=True)
class Contender:
    """Who is measured, and what it is sent; `milliseconds`: of CPU per request, one figure for each round."""

    socket: str
    pid: int
    exchanges: Sequence[RecordedExchange]
    milliseconds: list[float] = field(default_factory=list)


async def send(stub: grpc.aio.StreamStreamMultiCallable, exchange: RecordedExchange) -> None:
    """One exchange as Envoy has it: each message waits for the reply to the one before."""
    call = stub(timeout=EXCHANGE_SECONDS)
    await call.write(exchange.request)
    reply = await call.read()
    if reply is _END or not reply.HasField("request_headers"):
        raise RuntimeError("a request was not routed")
    chosen = reply.dynamic_metadata.fields[wellknown.DESTINATION_NAMESPACE].struct_value.fields
    await call.write(exchange.response(chosen[wellknown.DESTINATION_KEY].string_value))
    if await call.read() is _END:
        raise RuntimeError("a response was not acknowledged")
    await call.done_writing()
    await call.read()


async def measure(contenders: Mapping[str, Contender], *, rounds: int, batch: int, at_once: int) -> None:
    """Send a batch to each in turn, `rounds` times; the first round warms up and does not count."""
    async with contextlib.AsyncExitStack() as opened:
        stubs = {}
        for name, contender in contenders.items():
            channel = grpc.aio.insecure_channel(contender.socket, [("grpc.use_local_subchannel_pool", 1)])
            await opened.enter_async_context(channel)
            stubs[name] = channel.stream_stream(PROCESS, response_deserializer=ProcessingResponse.FromString)
        for number in range(rounds + 1):
            for name, contender in contenders.items():
                before = cpu_seconds([contender.pid])
                await _send_batch(stubs[name], contender.exchanges, batch, at_once, first=number * batch)
                spent = cpu_seconds([contender.pid]) - before
                if number:
                    contender.milliseconds.append(spent / batch * 1e3)


async def _send_batch(
    stub: grpc.aio.StreamStreamMultiCallable,
    exchanges: Sequence[RecordedExchange],
    batch: int,
    at_once: int,
    *,
    first: int,
) -> None:
    numbers = iter(range(first, first + batch))

    async def client() -> None:
        for number in numbers:
            await send(stub, exchanges[number % len(exchanges)])

    await asyncio.gather(*(client() for _ in range(at_once)))


@contextlib.contextmanager
def served(folder: Path) -> Iterator[tuple[tuple[str, int], tuple[str, int]]]:
    """An adapter with all strategies over mocker workers, and an empty service: socket and process id."""
    with Fleet(Pace(workers=2, blocks=8_192, speedup=20), folder) as fleet, Supervisor(folder) as supervisor:
        endpoints = [
            services.Endpoint(each.address, str(each.dynamo_instance_id)) for each in fleet.endpoints()
        ]
        services.write_endpoints(folder / "endpoints.yaml", endpoints)
        address = UnixAddress(str(folder / "adapter.sock"))
        (admin,) = free_ports(1)
        settings = {
            "strategies": {
                "round-robin": {"kind": "round-robin"},
                "internal": {
                    "kind": "internal",
                    "block_size": BLOCK_SIZE,
                    "kv_events": {"kind": "dynamo", "endpoint": ENDPOINT},
                },
                "dynamo": {
                    "kind": "dynamo", "endpoint": ENDPOINT, "block_size": BLOCK_SIZE, "discovery": "file",
                },
            },
            "fallback": [],
        }  # fmt: skip
        adapter = supervisor.start(
            services.epp_adapter(
                folder,
                address,
                admin,
                folder / "endpoints.yaml",
                dynamo_env=fleet.plane.env,
                settings=settings,
            )
        )
        empty_address = UnixAddress(str(folder / "empty.sock"))
        empty = supervisor.start(services.passing("empty", empty_address))
        supervisor.wait_ready([adapter, empty], deadline_seconds=60)
        yield (str(address), adapter.pid), (str(empty_address), empty.pid)


def contenders(
    adapter: tuple[str, int], empty: tuple[str, int], *, tokens: int, prompts: int = 60
) -> dict[str, Contender]:
    made = {
        "bare": Contender(*empty, recorded(tokens, prompts, ENDPOINTS, with_record=False)),
        "empty": Contender(*empty, recorded(tokens, prompts, ENDPOINTS)),
    }
    for strategy in STRATEGIES:
        asked = {"x-routing-strategy": strategy}
        made[strategy] = Contender(*adapter, recorded(tokens, prompts, ENDPOINTS, headers=asked))
    return made


def ratio(contender: Contender, base: Contender) -> float:
    """Of CPU per request, round by round; the median of all rounds."""
    return median(
        ours / theirs for ours, theirs in zip(contender.milliseconds, base.milliseconds, strict=True)
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    results = Results(quick=options.rounds < 20, model="")
    table = Table("in flight", "", "CPU ms per request", "by empty", "by bare", title="CPU of the adapter")
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory(prefix="adapter-") as folder:
        try:
            with served(Path(folder)) as (adapter, empty):
                for at_once in options.at_once:
                    made = contenders(adapter, empty, tokens=options.tokens)
                    asyncio.run(measure(made, rounds=options.rounds, batch=options.batch, at_once=at_once))
                    figures[str(at_once)] = _tell(made, at_once, results, table)
        except StartError as error:
            print(f"bench-adapter: {error}", file=sys.stderr)
            return 1
    results.measurements["cpu_ms_per_request"] = {"tokens": options.tokens, "in_flight": figures}
    results.write(options.out / "adapter.json")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(table)
    results.show(console)
    print(results.summary("bench-adapter"))
    return 1 if results.misses else 0


def _tell(made: Mapping[str, Contender], at_once: int, results: Results, table: Table) -> dict[str, float]:
    for name, contender in made.items():
        by_empty, by_bare = (ratio(contender, made[base]) for base in ("empty", "bare"))
        table.add_row(
            str(at_once), name, f"{median(contender.milliseconds):.3f}", f"{by_empty:.2f}", f"{by_bare:.2f}"
        )
        if name in STRATEGIES:
            results.ratios[f"{name}, {at_once} in flight: CPU by an empty ext_proc's"] = Ratio(
                by_empty, MUST, AIM, "lower"
            )
    return {name: round(median(contender.milliseconds), 4) for name, contender in made.items()}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m loadtests.bench.adapter",
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--tokens", type=int, default=8_000, help="of each prompt (%(default)s)")
    parser.add_argument("--rounds", type=int, default=60, metavar="N", help="that count (%(default)s)")
    parser.add_argument("--batch", type=int, default=40, metavar="N", help="requests (%(default)s)")
    parser.add_argument("--at-once", type=int, nargs="+", default=[1, 8], metavar="N",
                        help="requests in flight (%(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=FOLDER, metavar="DIR", help="for results (%(default)s)")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
