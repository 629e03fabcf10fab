"""CPU seconds and resident memory of running processes, from /proc."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from loadtests.stack.processes import ManagedProcess

__all__ = ["cpu_by_kind", "cpu_seconds", "memory_by_kind", "open_files", "resident_megabytes"]


def cpu_seconds(pids: Iterable[int]) -> float:
    """CPU time of all threads so far, user and system, to the nanosecond (schedstat)."""
    total = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
    return total / 1e9


def resident_megabytes(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise ValueError(f"process {pid} shows no resident memory")


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


def cpu_by_kind(processes: Mapping[str, ManagedProcess]) -> dict[str, float]:
    """CPU seconds so far of a stack's processes: those that differ in a number only are one kind."""
    spent: dict[str, float] = {}
    for name, process in processes.items():
        if process.running:
            spent[_kind(name)] = spent.get(_kind(name), 0.0) + cpu_seconds([process.pid])
    return spent


def memory_by_kind(processes: Mapping[str, ManagedProcess]) -> dict[str, float]:
    """Resident megabytes, likewise."""
    held: dict[str, float] = {}
    for name, process in processes.items():
        if process.running:
            held[_kind(name)] = held.get(_kind(name), 0.0) + resident_megabytes(process.pid)
    return held


def _kind(name: str) -> str:
    return re.sub(r"-\d+$", "", name)
