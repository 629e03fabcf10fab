"""Start processes, wait until they are ready, and leave none behind.

Every process gets a log file, a session of its own (so Ctrl-C reaches only us, and we decide the order of the
end) and a parent-death signal (so none outlives us, however we die). Linux ties that signal to the thread
that forked, so a Supervisor forks on a thread of its own, which lives as long as its processes may.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from loadtests.stack.probes import Probe

__all__ = ["ManagedProcess", "ProcessSpec", "StartError", "Supervisor"]

TRAMPOLINE: Final = Path(__file__).with_name("trampoline.py")
POLL_SECONDS: Final = 0.05
GRACE_SECONDS: Final = 5.0
TAIL_LINES: Final = 20


class StartError(RuntimeError):
    """A process did not become ready. The message names it and shows the end of its log."""


@dataclass(frozen=True, slots=True)
class ProcessSpec:
    """How to run one process. `env` is added to ours; without `ready` it is ready once it runs.

    Neighbours of one `group` do not need each other to end well, so they end at the same time.
    """

    name: str
    command: Sequence[str]
    env: Mapping[str, str] = field(default_factory=dict)
    ready: Probe | None = None
    group: str = ""


class ManagedProcess:
    """One process and its log. It may be killed and started again under the same name."""

    def __init__(self, spec: ProcessSpec, log: Path, forks: Executor) -> None:
        """`forks` runs what forks; its threads must outlive the process."""
        self.spec = spec
        self.log = log
        self._forks = forks
        self._popen = forks.submit(self._spawn).result()

    def _spawn(self) -> subprocess.Popen[bytes]:
        guarded = [sys.executable, "-I", "-S", str(TRAMPOLINE), str(os.getpid()), *self.spec.command]
        with self.log.open("ab") as log:
            return subprocess.Popen(
                guarded,
                env={**os.environ, **self.spec.env},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; minus the signal's number if a signal ended it."""
        return self._popen.poll()

    @property
    def running(self) -> bool:
        return self.exit_code is None

    def is_ready(self) -> bool:
        return self.running and (self.spec.ready is None or self.spec.ready())

    def tail(self) -> str:
        """The last lines of its log, if that is a file."""
        if not self.log.is_file():
            return ""
        with self.log.open(encoding="utf-8", errors="replace") as lines:
            return "".join(deque(lines, maxlen=TAIL_LINES)).rstrip()

    def terminate(self) -> None:
        """Ask it to end (SIGTERM). It may still be draining when this returns; see `wait`."""
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it at once (SIGKILL), and wait until it is gone."""
        self._signal(signal.SIGKILL)
        self._popen.wait()

    def wait(self, seconds: float) -> bool:
        """Whether it ended within so many seconds."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._popen.wait(seconds)
        return not self.running

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """SIGTERM, then SIGKILL after the grace."""
        _stop_together([self], grace_seconds)

    def start_again(self) -> None:
        """Run the same command again, appending to its log. Readiness is the caller's to await."""
        if self.running:
            raise RuntimeError(f"{self.name} is still running")
        self._popen = self._forks.submit(self._spawn).result()

    def _signal(self, number: signal.Signals) -> None:
        # The whole group: what it started goes with it. Until it is waited for, its id cannot be another's.
        if self.running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, number)


class Supervisor:
    """Owns processes from start to end; leaving the `with` block ends them in reverse order."""

    def __init__(self, logs: Path) -> None:
        logs.mkdir(parents=True, exist_ok=True)
        self.logs = logs
        self.processes: dict[str, ManagedProcess] = {}
        self._forks = ThreadPoolExecutor(1, thread_name_prefix="fork")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self, spec: ProcessSpec) -> ManagedProcess:
        """Start it and return at once; `wait_ready` waits for as many as there are, together."""
        if spec.name in self.processes:
            raise ValueError(f"there is a process named {spec.name} already")
        process = ManagedProcess(spec, self.logs / f"{spec.name}.log", self._forks)
        self.processes[spec.name] = process
        return process

    def wait_ready(
        self,
        processes: Iterable[ManagedProcess],
        *,
        deadline_seconds: float,
        on_ready: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Return when all are ready. Raises StartError when one ends, or is not ready by the deadline."""
        waiting = list(processes)
        deadline = time.monotonic() + deadline_seconds
        while waiting:
            for process in tuple(waiting):
                if process.is_ready():
                    waiting.remove(process)
                    on_ready(process.name)
                elif not process.running:
                    raise StartError(_story(process, f"ended with exit code {process.exit_code}"))
            if waiting and time.monotonic() > deadline:
                raise StartError(_story(waiting[0], f"was not ready after {deadline_seconds:g} s"))
            if waiting:
                time.sleep(POLL_SECONDS)

    def stop(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """End all, last started first, each (or each group) once its successors are gone. Safe to call again.

        SIGTERM first, and SIGKILL after the grace.
        """
        try:
            for _, group in groupby(
                reversed(self.processes.values()), key=lambda each: each.spec.group or each.name
            ):
                _stop_together(list(group), grace_seconds)
        finally:  # a second Ctrl-C cuts the grace short, never the end
            for process in reversed(self.processes.values()):
                process.kill()
            self._forks.shutdown()


def _stop_together(processes: list[ManagedProcess], grace_seconds: float) -> None:
    for process in processes:
        process.terminate()
    deadline = time.monotonic() + grace_seconds
    for process in processes:
        if not process.wait(max(0.0, deadline - time.monotonic())):
            process.kill()


def _story(process: ManagedProcess, what: str) -> str:
    return f"{process.name} {what}; the end of {process.log}:\n{process.tail()}"
