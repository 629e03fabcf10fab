"""What the generator says for the chart's values: the other side of the comparison in test_envoy.py.

Written from the values as a person reads them, not from the templates.
"""

from typing import Any

import helm_python

from loadtests.stack.chart_envoy import ChartEnvoy
from loadtests.stack.envoy_config import BodyMode, TcpAddress
from tests.chart.matrix import Values
from tests.chart.rendering import CHART

FULL_DUPLEX = BodyMode.FULL_DUPLEX_STREAMED


def expected(values: Values, release: str = "rel-tokenext-chain") -> ChartEnvoy:
    with helm_python.Chart.load(CHART) as chart:
        whole: dict[str, Any] = chart.merge_values(values)
    tokenext, epp, envoy = whole["tokenext"], whole["epp"], whole["envoy"]

    def host(component: str) -> str:
        return f"{release}-{component}.ns.svc.{whole['clusterDomain']}"

    in_chain = tokenext["placement"] == "filter"
    sees_bodies = not in_chain or whole["carrier"] == "body" or whole["modelRewrites"] or epp["requireModel"]
    return ChartEnvoy(
        tokenext=tuple(
            TcpAddress(host("tokenext-pods"), tokenext["port"] + number)
            for number in range(tokenext["processes"] if in_chain else 0)
        ),
        epp=TcpAddress(host("epp-pods"), epp["port"]),
        workers=tuple(TcpAddress(host("pool"), port) for port in whole["pool"]["targetPorts"])
        if envoy["pool"] == "dns"
        else None,
        port=envoy["port"],
        probe_port=envoy["adminPort"],
        namespace=tokenext["metadataNamespace"] or "tokenext",
        tokenext_body=BodyMode(tokenext["requestBody"]),
        tokenext_fail_open=tokenext["failOpen"],
        tokenext_timeout_seconds=tokenext["messageTimeoutSeconds"],
        epp_body=FULL_DUPLEX if sees_bodies else BodyMode.NONE,
        epp_response_body=FULL_DUPLEX if whole["modelRewrites"] else BodyMode.NONE,
        epp_fail_open=epp["failureMode"] == "FailOpen",
        epp_timeout_seconds=epp["messageTimeoutSeconds"],
        tls=whole["tls"]["enabled"],
        buffer_limit_bytes=envoy["bufferLimitBytes"],
        stream_idle_seconds=envoy["streamIdleSeconds"],
        retries=envoy["retries"],
    )
