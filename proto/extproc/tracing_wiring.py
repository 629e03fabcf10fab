"""Turns tracing on where the settings say so, and imports OpenTelemetry only then."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from prometheus_client import CollectorRegistry

from extproc.settings_file import SettingsError
from extproc.tracing import Tracing, TracingSettings

__all__ = ["tracing_by"]


def tracing_by(
    settings: TracingSettings | None,
    *,
    service: str,
    version: str,
    registry: CollectorRegistry,
    clock: Callable[[], float],
    source: str,
) -> AbstractContextManager[Tracing | None]:
    """None: nothing is traced. `clock` is the exchanges' own. Raises SettingsError without OpenTelemetry."""
    if settings is None:
        return nullcontext()
    try:
        from extproc import otel  # noqa: PLC0415  # OpenTelemetry takes 20 MB; only who traces pays
    except ImportError:
        # xds-protos installs older files of opentelemetry-proto's over the newer ones, or not, by chance.
        problem = (
            "needs OpenTelemetry: pip install 'tokenext-chain[tracing]', and after it "
            "pip install --no-deps --force-reinstall opentelemetry-proto"
        )
        raise SettingsError(source, problem, "tracing") from None
    return otel.open_tracing(
        settings,
        service=service,
        version=version,
        metric_prefix=service.replace("-", "_"),
        registry=registry,
        clock=clock,
        now_ns=time.time_ns,
    )
