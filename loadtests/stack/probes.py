"""Ways to ask whether a process is ready, and free ports for it to listen on.

A probe answers at once: True means ready, False means not yet. It never raises for a peer that is not there.
"""

import contextlib
import socket
import urllib.error
import urllib.request
from collections.abc import Callable

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

__all__ = ["Probe", "free_ports", "grpc_serving", "http_answers", "tcp_accepts"]

Probe = Callable[[], bool]

LOOPBACK = "127.0.0.1"
ATTEMPT_SECONDS = 1.0


def free_ports(count: int) -> list[int]:
    """Distinct ports of the loopback interface that were free just now."""
    with contextlib.ExitStack() as open_sockets:
        ports = []
        for _ in range(count):
            listener = open_sockets.enter_context(socket.socket())
            listener.bind((LOOPBACK, 0))
            ports.append(listener.getsockname()[1])
        return ports


def tcp_accepts(port: int) -> Probe:
    def probe() -> bool:
        try:
            with socket.create_connection((LOOPBACK, port), timeout=ATTEMPT_SECONDS):
                return True
        except OSError:
            return False

    return probe


def http_answers(url: str, *, having: Callable[[bytes], bool] = lambda _: True) -> Probe:
    """Ready when GET answers 200 with a body that `having` accepts."""

    def probe() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=ATTEMPT_SECONDS) as response:  # noqa: S310  # our own url
                return having(response.read())
        except (OSError, urllib.error.HTTPError, ValueError):
            return False

    return probe


def grpc_serving(address: str, service: str = "readiness") -> Probe:
    """Ready when grpc.health.v1 says that `service` is serving at "unix:/path" or "host:port"."""

    def probe() -> bool:
        # A channel of its own each time: a reused one would wait out its reconnect back-off.
        with grpc.insecure_channel(address, [("grpc.use_local_subchannel_pool", 1)]) as channel:
            try:
                answer = health_pb2_grpc.HealthStub(channel).Check(
                    health_pb2.HealthCheckRequest(service=service), timeout=ATTEMPT_SECONDS
                )
            except grpc.RpcError:
                return False
            return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    return probe
