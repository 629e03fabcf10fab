"""What a service says of itself on its admin port."""

import asyncio
import time
from urllib.request import urlopen

from prometheus_client.parser import text_string_to_metric_families


def read(admin_url: str) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    with urlopen(f"{admin_url}/metrics", timeout=5) as response:
        text = response.read().decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def total(admin_url: str, name: str, **labels: str) -> float:
    """The sum of all series of a name that carry these labels."""
    wanted = set(labels.items())
    return sum(value for (key, have), value in read(admin_url).items() if key == name and wanted <= have)


async def until(admin_url: str, expected: float, name: str, *, seconds: float = 5.0, **labels: str) -> float:
    """The value once it is `expected`, or the last one seen."""
    deadline = time.monotonic() + seconds
    while (value := await asyncio.to_thread(total, admin_url, name, **labels)) != expected:
        if time.monotonic() > deadline:
            break
        await asyncio.sleep(0.05)
    return value
