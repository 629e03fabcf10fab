"""CPU seconds and resident memory of running processes, from /proc."""

from collections.abc import Iterable
from pathlib import Path

__all__ = ["cpu_seconds", "resident_megabytes"]


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
