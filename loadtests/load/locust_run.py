"""Locust as a process of its own: what it is told, and how far it is."""

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from loadtests.load.target import Target
from loadtests.load.trace import Entry

__all__ = ["LOCUSTFILE", "Run", "bar", "environment", "send", "show"]

LOCUSTFILE: Final = Path(__file__).resolve().parents[1] / "locustfile.py"
GRACE_SECONDS: Final = 60.0  # for the requests that are under way when the time is over
_LOOK_SECONDS: Final = 0.1


@dataclass(frozen=True, slots=True)
class Run:
    """What is sent. `asks` of each user, who then ends, or a `trace`, end a run before its `seconds` do.

    `samples` gets a line for each request. `spawn_rate`: users that begin per second; None: all at once.
    """

    samples: Path
    workload: str = "mixed"
    users: int = 8
    spawn_rate: int | None = None
    seconds: int = 120
    warm_up_seconds: int = 0
    seed: int = 1
    think_seconds: float = 1.0
    stream_share: float = 1.0
    abort_share: float = 0.0
    max_tokens: int = 64
    asks: int = 0
    corpus: Path | None = None
    trace: Path | None = None
    trace_speed: float = 1.0

    def total_seconds(self, entries: Sequence[Entry] = ()) -> float:
        """How long it takes at most; a trace is always replayed whole."""
        if entries:
            return entries[-1].timestamp / 1e3 / self.trace_speed
        return self.warm_up_seconds + self.seconds

    def command(self, target: Target) -> list[str]:
        command = [sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--host", target.url]
        for name, value in {
            "model": target.model,
            "workload": self.workload,
            "users": self.users,
            "spawn-rate": self.spawn_rate or self.users,
            "seed": self.seed,
            "think-seconds": self.think_seconds,
            "stream-share": self.stream_share,
            "abort-share": self.abort_share,
            "max-tokens": self.max_tokens,
            "warm-up-seconds": self.warm_up_seconds,
            "asks": self.asks,
            "corpus": self.corpus or "",
            "trace": self.trace or "",
            "trace-speed": self.trace_speed,
            "samples": self.samples,
        }.items():
            command += [f"--{name}", str(value)]
        return command

    def headless(self, target: Target) -> list[str]:
        command = [*self.command(target), "--headless", "--stop-timeout", "30", "--exit-code-on-error", "0"]
        if self.trace is None:
            command += ["--run-time", f"{self.warm_up_seconds + self.seconds}s"]
        return [*command, "--only-summary"]


def show(run: Run, target: Target) -> int:
    """Serve locust's page until it is stopped."""
    return subprocess.run(run.command(target), check=False, env=environment()).returncode


def send(run: Run, target: Target, folder: Path, progress: Callable[[float], None] = lambda _: None) -> None:
    """Run to its end; `progress` hears of the seconds so far. Raises OSError where locust cannot run."""
    log_path = folder / "locust.log"
    with log_path.open("ab") as log:
        process = subprocess.Popen(run.headless(target), stdout=log, stderr=log, env=environment())
        began = time.monotonic()
        ends = None if run.trace else run.total_seconds() + GRACE_SECONDS
        try:
            while process.poll() is None and (ends is None or time.monotonic() - began < ends):
                progress(time.monotonic() - began)
                time.sleep(_LOOK_SECONDS)
        finally:
            if process.poll() is None:
                process.terminate()
            process.wait(timeout=GRACE_SECONDS)
    if process.returncode != 0:
        raise OSError(f"locust ended with {process.returncode}; see {log_path}")


@contextlib.contextmanager
def bar(console: Console, seconds: float) -> Iterator[Callable[[float], None]]:
    """A bar for people that `send` moves."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        shown = progress.add_task("sending", total=seconds)
        yield lambda passed: progress.update(shown, completed=min(passed, seconds))


def environment() -> dict[str, str]:
    """Ours, in which the locustfile finds its modules."""
    repository = LOCUSTFILE.parents[1]
    return {**os.environ, "PYTHONPATH": f"{repository}:{repository / 'proto'}"}
