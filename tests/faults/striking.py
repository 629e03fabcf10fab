"""How parts are struck: killed, hung, slowed, with a full disk, or in another environment."""

import os
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from loadtests.stack.chain import Chain
from loadtests.stack.processes import ManagedProcess
from tests.faults.counters import epp, tokenext
from tests.faults.survival import Fault

__all__ = ["Slow", "breaking", "full_disk", "hung", "killed", "with_environment"]


def _signal(processes: list[ManagedProcess], number: signal.Signals) -> None:
    for process in processes:
        os.killpg(process.pid, number)


class Slow:
    """A process that runs for a tenth of the time only, as on a machine with no CPU to spare."""

    def __init__(self, process: ManagedProcess) -> None:
        self._process = process
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._brake)

    def start(self) -> None:
        self._thread.start()

    def end(self) -> None:
        self._over.set()
        self._thread.join()

    def _brake(self) -> None:
        while not self._over.is_set():
            _signal([self._process], signal.SIGSTOP)
            time.sleep(0.09)
            _signal([self._process], signal.SIGCONT)
            time.sleep(0.01)


def hung(name: str, *processes: ManagedProcess, **more) -> Fault:
    return Fault(
        name,
        lambda: _signal(list(processes), signal.SIGSTOP),
        lambda: _signal(list(processes), signal.SIGCONT),
        **more,
    )


def killed(name: str, chain: Chain, *names: str, **more) -> Fault:
    def strike() -> None:
        for each in names:
            chain.processes[each].kill()

    def mend() -> None:
        for each in names:
            chain.restart(each)

    return Fault(name, strike, mend, **more)


def full_disk(chain: Chain, name: str) -> Fault:
    """Its log goes to /dev/full: every write fails with "no space left on device"."""
    process = chain.processes[name]
    log = process.log

    def strike() -> None:
        process.log = Path("/dev/full")
        chain.restart(name)

    def mend() -> None:
        process.log = log
        chain.restart(name)

    refused = frozenset({500, 503}) if name == "epp-adapter" else frozenset()  # while it is restarted
    lost = tokenext if name == "tokenext-0" else epp
    return Fault(
        f"disk full for the log of {name} (with a restart)",
        strike,
        mend,
        allowed=frozenset({200}) | refused,
        counted=(lost("log_lines_lost_total"),),
    )


@contextmanager
def with_environment(chain: Chain, environment: Mapping[str, str], *names: str) -> Iterator[None]:
    """The processes run with these variables, too, until the block is left."""
    before = {name: chain.processes[name].spec for name in names}
    for name, spec in before.items():
        chain.processes[name].spec = replace(spec, env={**spec.env, **environment})
        chain.restart(name)
    try:
        yield
    finally:
        for name, spec in before.items():
            chain.processes[name].spec = spec
            chain.restart(name)


def breaking(folder: Path, flag: Path) -> dict[str, str]:
    """Python reads sitecustomize.py before anything else; this one makes engines fail while a file exists."""
    (folder / "sitecustomize.py").write_text(
        "import os\n"
        "from tokenext.engine import EngineError\n"
        "from tokenext.engines.fast import FastEngine\n"
        "from tokenext.engines.huggingface import HuggingFaceEngine\n"
        "from tokenext.prefix_cache import PrefixCache\n"
        "def breaking(encode):\n"
        "    def either(*arguments, **options):\n"
        f"        if os.path.exists({str(flag)!r}):\n"
        "            raise EngineError('broken by a test')\n"
        "        return encode(*arguments, **options)\n"
        "    return either\n"
        "for kind in (FastEngine, HuggingFaceEngine, PrefixCache):\n"
        "    kind.encode = breaking(kind.encode)\n",
        encoding="utf-8",
    )
    return {"PYTHONPATH": f"{folder}:{os.environ.get('PYTHONPATH', '')}"}
