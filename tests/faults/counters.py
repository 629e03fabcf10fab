"""Counters of services and of Envoy, before a fault and after it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.error import URLError
from urllib.request import urlopen

from loadtests.stack.chain import Chain
from tests.integration import metrics

__all__ = ["Counter", "envoy", "epp", "moved", "snapshot", "tokenext"]


@dataclass(frozen=True, slots=True)
class Counter:
    """A series of a process's admin port; of Envoy a regular expression over its statistics' names."""

    process: str
    name: str
    labels: tuple[tuple[str, str], ...] = ()

    def told(self) -> str:
        labels = ",".join(f"{key}={value}" for key, value in self.labels)
        return f"`{self.name}{{{labels}}}`" if labels else f"`{self.name}`"

    def value(self, chain: Chain) -> float:
        """0 where the process does not answer."""
        try:
            if self.process == "envoy":
                return _envoy(chain.admin_urls["envoy"], self.name)
            return metrics.total(chain.admin_urls[self.process], self.name, **dict(self.labels))
        except (URLError, OSError):
            return 0.0


def epp(name: str, **labels: str) -> Counter:
    return Counter("epp-adapter", f"epp_adapter_{name}", tuple(labels.items()))


def tokenext(name: str, **labels: str) -> Counter:
    return Counter("tokenext-0", f"tokenext_{name}", tuple(labels.items()))


def envoy(name: str) -> Counter:
    return Counter("envoy", name)


def snapshot(chain: Chain, counters: tuple[Counter, ...]) -> dict[Counter, float]:
    return {counter: counter.value(chain) for counter in counters}


def moved(before: Mapping[Counter, float], after: Mapping[Counter, float]) -> dict[Counter, float]:
    """By how much; a process that began anew counts from 0."""
    return {
        counter: value - before[counter] if value >= before[counter] else value
        for counter, value in after.items()
    }


def _envoy(url: str, pattern: str) -> float:
    with urlopen(f"{url}/stats", timeout=5) as response:
        lines = response.read().decode().splitlines()
    found = re.compile(pattern)
    return sum(
        float(value)
        for name, _, value in (line.partition(": ") for line in lines)
        if found.search(name) and value.isdecimal()
    )
