"""A model server's metrics page (Prometheus text) read for what schedulers need.

A page has hundreds of kilobytes of histograms and a handful of lines that matter, so it is searched for those
instead of being parsed. Names are those of the reference's core-metrics-extractor (llm-d-router), by engine.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from epp_adapter.routing.load import EndpointLoad

__all__ = ["ENGINES", "EngineMetrics", "read_load"]


@dataclass(frozen=True, slots=True)
class EngineMetrics:
    """Names of one engine's metrics; of several, the first that a page has. `cache_info` is a metric whose
    labels `block_size` and `num_blocks` tell the cache; without it those two are metrics themselves.
    """

    waiting: tuple[bytes, ...]
    running: tuple[bytes, ...]
    kv_utilization: tuple[bytes, ...]
    block_size: bytes
    num_blocks: bytes
    cache_info: bytes | None = None
    lora_info: bytes | None = None


ENGINES: Final[Mapping[str, EngineMetrics]] = MappingProxyType(
    {
        "vllm": EngineMetrics(
            waiting=(b"vllm:num_requests_waiting",),
            running=(b"vllm:num_requests_running",),
            # The second is the name before vLLM 0.10.
            kv_utilization=(b"vllm:kv_cache_usage_perc", b"vllm:gpu_cache_usage_perc"),
            cache_info=b"vllm:cache_config_info",
            block_size=b"block_size",
            num_blocks=b"num_gpu_blocks",
            lora_info=b"vllm:lora_requests_info",
        ),
        "sglang": EngineMetrics(
            waiting=(b"sglang:num_queue_reqs",),
            running=(b"sglang:num_running_reqs",),
            kv_utilization=(b"sglang:token_usage",),
            cache_info=b"sglang:cache_config_info",
            block_size=b"page_size",
            num_blocks=b"num_pages",
        ),
        "trtllm-serve": EngineMetrics(
            waiting=(b"trtllm_num_requests_waiting",),
            running=(b"trtllm_num_requests_running",),
            kv_utilization=(b"trtllm_kv_cache_utilization",),
            block_size=b"trtllm_kv_cache_tokens_per_block",
            num_blocks=b"trtllm_kv_cache_max_blocks",
        ),
    }
)

_LABEL: Final = re.compile(rb'([a-zA-Z_]\w*)="((?:[^"\\]|\\.)*)"')
_Labels = dict[bytes, bytes]


def read_load(page: bytes, engine: EngineMetrics, now: float) -> EndpointLoad | None:
    """None where the page has not all of the queue, the running requests and the cache's use.

    An engine with several cores (data parallel) has a series for each: requests are summed, and of the caches
    the mean is taken. Of vLLM's LoRA series, whose value is a time, the newest counts.
    """
    waiting = _first(page, engine.waiting)
    running = _first(page, engine.running)
    utilization = _first(page, engine.kv_utilization)
    if not (waiting and running and utilization):
        return None
    block_size, num_blocks = _cache(page, engine)
    lora = _newest_labels(page, engine.lora_info) if engine.lora_info else {}
    return EndpointLoad(
        waiting=int(sum(waiting)),
        running=int(sum(running)),
        kv_utilization=sum(utilization) / len(utilization),
        updated_at=now,
        active_adapters=_names(lora.get(b"running_lora_adapters")),
        waiting_adapters=_names(lora.get(b"waiting_lora_adapters")),
        max_adapters=_count(lora.get(b"max_lora")),
        block_size=block_size,
        num_blocks=num_blocks,
    )


def _samples(page: bytes, name: bytes) -> Iterator[tuple[bytes, float]]:
    """Labels as they stand, and value, of each series with exactly this name. Odd lines are passed over."""
    end = 0
    while (start := page.find(name, end)) >= 0:
        end = page.find(b"\n", start)
        end = len(page) if end < 0 else end
        after = start + len(name)
        if (start and page[start - 1 : start] != b"\n") or page[after : after + 1] not in (b"{", b" "):
            continue
        labels, _, value = page[after:end].rpartition(b"}")
        if number := _number(value):
            yield labels, number[0]


def _number(text: bytes) -> tuple[float] | None:
    """The value of a sample, which a timestamp may follow. What is no finite count is none."""
    words = text.split(maxsplit=2)
    try:
        value = float(words[0]) if words else math.nan
    except ValueError:
        return None
    return (value,) if math.isfinite(value) and value >= 0 else None


def _first(page: bytes, names: tuple[bytes, ...]) -> list[float]:
    for name in names:
        if found := [value for _, value in _samples(page, name)]:
            return found
    return []


def _newest_labels(page: bytes, name: bytes) -> _Labels:
    newest = max(_samples(page, name), key=lambda sample: sample[1], default=(b"", 0.0))
    return dict(_LABEL.findall(newest[0]))


def _cache(page: bytes, engine: EngineMetrics) -> tuple[int, int]:
    if engine.cache_info is not None:
        labels = _newest_labels(page, engine.cache_info)
        return _count(labels.get(engine.block_size)), _count(labels.get(engine.num_blocks))
    sizes, blocks = _first(page, (engine.block_size,)), _first(page, (engine.num_blocks,))
    return int(max(sizes, default=0)), int(sum(blocks))


def _count(text: bytes | None) -> int:
    """A label's number; 0 where it is none (vLLM writes None before it knows)."""
    return int(text) if text and text.isdigit() and len(text) <= 18 else 0  # noqa: PLR2004  # fits 64 bits


def _names(text: bytes | None) -> frozenset[str]:
    names = (text or b"").decode("utf-8", "replace").split(",")
    return frozenset(name.strip() for name in names if name.strip())
