"""The Envoy bootstrap of the Helm chart, made by the generator that makes the demo's.

    python -m loadtests.stack.chart_envoy        # writes charts/tokenext-chain/files/envoy.json

The chart fills in what values decide: addresses, namespace, limits, which filter stands there, how it fails.
tests/chart holds every rendered bootstrap equal to what the generator says for the same values.
"""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from extproc import wellknown
from loadtests.stack.envoy_clusters import POOL
from loadtests.stack.envoy_config import (
    AccessLog,
    BodyMode,
    DiscoveredPool,
    DnsPool,
    EnvoyOptions,
    ListenerTls,
    TcpAddress,
    access_log_fields,
    epp_filter,
    render,
    tokenext_filter,
)

__all__ = ["FILE", "ChartEnvoy", "main", "options", "parts"]

FILE: Final = Path(__file__).resolve().parents[2] / "charts/tokenext-chain/files/envoy.json"
ANY: Final = "0.0.0.0"  # noqa: S104  # a pod's address, which the network policy guards
SECRETS: Final = "/etc/envoy/secrets.json"
EPP: Final = TcpAddress("epp", 9002)
NONE: Final = BodyMode.NONE
FULL_DUPLEX: Final = BodyMode.FULL_DUPLEX_STREAMED
TOKENEXT_MODES: Final = (BodyMode.BUFFERED, FULL_DUPLEX)
EPP_MODES: Final = ((NONE, NONE), (FULL_DUPLEX, NONE), (FULL_DUPLEX, FULL_DUPLEX))


@dataclass(frozen=True, slots=True)
class ChartEnvoy:
    """What values decide. Without `tokenext` the picker is the only filter: it calls tokenext itself.

    `workers`: names of the pool's endpoints; None: Envoy connects to whichever address the picker says.
    """

    tokenext: tuple[TcpAddress, ...] = (TcpAddress("tokenext", 9000),)
    epp: TcpAddress = EPP
    workers: tuple[TcpAddress, ...] | None = None
    port: int = 8080
    probe_port: int = 9901
    namespace: str = wellknown.RECORD_NAMESPACE
    tokenext_body: BodyMode = BodyMode.BUFFERED
    tokenext_fail_open: bool = True
    tokenext_timeout_seconds: float = 5.0
    epp_body: BodyMode = BodyMode.NONE
    epp_response_body: BodyMode = BodyMode.NONE
    epp_fail_open: bool = False
    epp_timeout_seconds: float = 5.0
    tls: bool = False
    buffer_limit_bytes: int = 32 * 1024 * 1024
    stream_idle_seconds: float = 900.0
    retries: int = 2


def options(chart: ChartEnvoy) -> EnvoyOptions:
    tokenext = tokenext_filter(
        chart.tokenext or (TcpAddress("tokenext", 9000),),
        request_body=chart.tokenext_body,
        fail_open=chart.tokenext_fail_open,
        message_timeout_seconds=chart.tokenext_timeout_seconds,
        namespace=chart.namespace,
    )
    epp = epp_filter(
        (chart.epp,),
        request_body=chart.epp_body,
        response_body=chart.epp_response_body,
        fail_open=chart.epp_fail_open,
        message_timeout_seconds=chart.epp_timeout_seconds,
        record_namespace=chart.namespace,
    )
    return EnvoyOptions(
        listen=TcpAddress(ANY, chart.port),
        pool=DiscoveredPool() if chart.workers is None else DnsPool(chart.workers),
        filters=(tokenext, epp) if chart.tokenext else (epp,),
        tls=ListenerTls(SECRETS) if chart.tls else None,
        admin=TcpAddress("127.0.0.1", 9900),
        probes=TcpAddress(ANY, chart.probe_port),
        access_log=AccessLog("/dev/stdout", access_log_fields(chart.namespace)),
        buffer_limit_bytes=chart.buffer_limit_bytes,
        stream_idle_seconds=chart.stream_idle_seconds,
        retries=chart.retries,
    )


def parts() -> dict[str, object]:
    """Everything that differs in form, not in values: the chart puts together what its values ask for."""
    base = ChartEnvoy()
    workers = (TcpAddress("workers", 8000),)

    secure = _rendered(dataclasses.replace(base, tls=True))

    def part(index: int, **changes: Any) -> object:
        return _filters(dataclasses.replace(base, **changes))[index]

    return {
        "bootstrap": _rendered(base),
        "tokenext": {
            mode.value: part(0, tokenext_body=mode, tokenext_fail_open=False) for mode in TOKENEXT_MODES
        },
        "epp": {
            f"{request}/{response}": part(1, epp_body=request, epp_response_body=response)
            for request, response in EPP_MODES
        },
        "pools": {
            "originalDestination": _pool(base),
            "dns": _pool(dataclasses.replace(base, workers=workers)),
        },
        "node": secure["node"],
        "transportSocket": secure["staticResources"]["listeners"][0]["filterChains"][0]["transportSocket"],
    }


def _rendered(chart: ChartEnvoy) -> Any:
    return json.loads(render(options(chart)))


def _filters(chart: ChartEnvoy) -> Any:
    listener = _rendered(chart)["staticResources"]["listeners"][0]
    return listener["filterChains"][0]["filters"][0]["typedConfig"]["httpFilters"]


def _pool(chart: ChartEnvoy) -> object:
    clusters = _rendered(chart)["staticResources"]["clusters"]
    return next(each for each in clusters if each["name"] == POOL)


def main() -> None:
    FILE.write_text(json.dumps(parts(), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
