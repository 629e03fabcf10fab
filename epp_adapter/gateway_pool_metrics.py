"""The reference Endpoint Picker's series of a pool, made when they are read."""

from collections.abc import Callable, Iterator, Mapping
from statistics import fmean, pstdev
from typing import Final

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from epp_adapter.endpoints import Endpoint
from epp_adapter.routing.load import LoadSource

__all__ = ["PoolCollector"]


class PoolCollector(Collector):
    """Averages and deviations are over the ready endpoints of which a reading is known, as the reference has
    them. A series by endpoint is there as long as its endpoint is ready: the pool bounds their number.
    """

    def __init__(self, name: str, ready: Callable[[], tuple[Endpoint, ...]], loads: LoadSource) -> None:
        self._pool: Final = {"name": name}
        self._ready: Final = ready
        self._loads: Final = loads

    def collect(self) -> Iterator[Metric]:
        endpoints = self._ready()
        yield from self._both("ready_endpoints", "ready_pods", "Endpoints that are ready.", len(endpoints))
        readings = self._loads.loads([endpoint.address for endpoint in endpoints])
        known = [
            (endpoint, load) for endpoint, load in zip(endpoints, readings, strict=True) if load is not None
        ]
        if not known:
            return
        for what, values in (
            ("kv_cache_utilization", [load.kv_utilization for _, load in known]),
            ("queue_size", [load.waiting for _, load in known]),
            ("running_requests", [load.running for _, load in known]),
        ):
            told = f"{what.replace('_', ' ')} of the pool's endpoints."
            yield from self._both(f"average_{what}", f"average_{what}", f"Average {told}", fmean(values))
            yield _gauge(
                f"llm_d_epp_std_dev_{what}",
                f"Standard deviation of {told}",
                [(self._pool, pstdev(map(float, values)))],
            )
        for name, label in (
            ("llm_d_epp_per_endpoint_queue_size", "model_server_endpoint"),
            ("inference_pool_per_pod_queue_size", "model_server_pod"),
        ):
            yield _gauge(
                name,
                "Requests that wait at each endpoint.",
                [({**self._pool, label: endpoint.address}, load.waiting) for endpoint, load in known],
            )

    def _both(self, name: str, old_name: str, text: str, value: float) -> Iterator[Metric]:
        for each in (f"llm_d_epp_{name}", f"inference_pool_{old_name}"):
            yield _gauge(each, text, [(self._pool, value)])


def _gauge(name: str, text: str, values: list[tuple[Mapping[str, str], float]]) -> Metric:
    family = Metric(name, text, "gauge")
    for labels, value in values:
        family.add_sample(name, dict(labels), value)
    return family
