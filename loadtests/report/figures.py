"""From samples to figures. Pure: no file is read here, and nothing is averaged over what failed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from loadtests.load.record import TargetRecord
from loadtests.load.results import PERCENTS, percentile
from loadtests.load.samples import Sample

__all__ = ["LENGTH_BINS", "Bin", "Figures", "Slice", "figures"]

# Lower edges in tokens; the last bin has no upper one.
LENGTH_BINS: Final = (0, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 64_000)
_SLICES: Final = 24


@dataclass(frozen=True, slots=True)
class Bin:
    """Requests whose prompts have `tokens` or more, and fewer than the next bin's."""

    tokens: int
    count: int
    first_p50: float
    first_p95: float


@dataclass(frozen=True, slots=True)
class Slice:
    """Requests that were sent in a part of the target's own rounds, end to end; `at` is its middle."""

    at: float
    count: int
    p50: float
    p95: float


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one target. Times in seconds, over requests that did not fail; None where there is none.

    `firsts` are times to the first token, sorted. `hit_rate`: tokens that workers had cached, by all tokens
    of prompts; None where the server told of none. `cpu_ms` and `memory_mb` are by kind of process.
    """

    name: str
    says: str
    requests: int
    left: int
    failures: Mapping[str, int]
    seconds: float
    end: Mapping[int, float | None]
    first: Mapping[int, float | None]
    gap: Mapping[int, float | None]
    late_p95: float | None
    hit_rate: float | None
    prompt_tokens: int
    firsts: tuple[float, ...]
    by_length: tuple[Bin, ...]
    over_time: tuple[Slice, ...]
    cpu_ms: Mapping[str, float]
    memory_mb: Mapping[str, float]

    @property
    def failed(self) -> int:
        return sum(self.failures.values())


def figures(target: TargetRecord, rounds: Sequence[Sequence[Sample]]) -> Figures:
    """`rounds` are the samples of the target's rounds, in their order."""
    every = [sample for samples in rounds for sample in samples]
    answered = [sample for sample in every if not sample.failure]
    whole = [sample for sample in answered if not sample.left]
    firsts = sorted(sample.first for sample in answered if sample.first is not None)
    told = [sample for sample in answered if sample.prompt_tokens]
    tokens = sum(sample.prompt_tokens for sample in told)
    cached = sum(sample.cached_tokens for sample in told)
    placed: list[tuple[float, float]] = []
    passed = 0.0
    for each, samples in zip(target.rounds, rounds, strict=True):
        placed += [(passed + one.at, one.seconds) for one in samples if not one.failure and not one.left]
        passed += each.seconds
    return Figures(
        name=target.name,
        says=target.says,
        requests=len(every),
        left=sum(sample.left for sample in every),
        failures=dict(Counter(sample.failure for sample in every if sample.failure)),
        seconds=sum(each.seconds for each in target.rounds),
        end=_percentiles(sample.seconds for sample in whole),
        first=_percentiles(firsts),
        gap=_percentiles(gap / 1e6 for sample in answered for gap in sample.gaps_us),
        late_p95=percentile([sample.late for sample in every], 95) if any(s.late for s in every) else None,
        hit_rate=cached / tokens if tokens else None,
        prompt_tokens=tokens,
        firsts=tuple(firsts),
        by_length=_by_length(told),
        over_time=_over_time(placed),
        cpu_ms=_cpu_ms(target, len(every)),
        memory_mb=target.memory_mb,
    )


def _percentiles(values: Iterable[float]) -> dict[int, float | None]:
    known = list(values)
    return {percent: percentile(known, percent) for percent in PERCENTS}


def _by_length(samples: Sequence[Sample]) -> tuple[Bin, ...]:
    bins = []
    for low, high in zip(LENGTH_BINS, (*LENGTH_BINS[1:], None), strict=True):
        firsts = [
            sample.first
            for sample in samples
            if sample.first is not None
            and sample.prompt_tokens >= low
            and (high is None or sample.prompt_tokens < high)
        ]
        middle, high_end = percentile(firsts, 50), percentile(firsts, 95)
        if middle is not None and high_end is not None:
            bins.append(Bin(low, len(firsts), middle, high_end))
    return tuple(bins)


def _over_time(placed: Sequence[tuple[float, float]]) -> tuple[Slice, ...]:
    if not placed:
        return ()
    start, end = min(at for at, _ in placed), max(at for at, _ in placed)
    width = max((end - start) / _SLICES, 1e-9)
    parts: dict[int, list[float]] = {}
    for at, seconds in placed:
        parts.setdefault(min(_SLICES - 1, int((at - start) / width)), []).append(seconds)
    slices = []
    for number, values in sorted(parts.items()):
        middle, high = percentile(values, 50), percentile(values, 95)
        assert middle is not None
        assert high is not None
        slices.append(Slice(start + (number + 0.5) * width, len(values), middle, high))
    return tuple(slices)


def _cpu_ms(target: TargetRecord, requests: int) -> dict[str, float]:
    spent: dict[str, float] = {}
    for each in target.rounds:
        for kind, seconds in each.cpu_seconds.items():
            spent[kind] = spent.get(kind, 0.0) + seconds
    return {kind: seconds / requests * 1e3 for kind, seconds in spent.items()} if requests else {}
