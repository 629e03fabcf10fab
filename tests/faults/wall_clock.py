"""A wall clock that jumps, for processes that are started with it: wall_clock.c, compiled and preloaded.

It stands before the C library's functions that tell the time of day. The monotonic clock stays as it is, as
it does when the time of a machine is set. What it does not show is what the kernel itself does by the wall
clock, and what an hour does to Dynamo's file discovery (see the source).
"""

import shutil
import struct
import subprocess
import time
from collections.abc import Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.request import urlopen

__all__ = ["NoClockError", "WallClock"]

SOURCE = Path(__file__).with_suffix(".c")
NOTICED_SECONDS = 5.0
EXACT_SECONDS = 5.0  # a Date has whole seconds, and Envoy's is made twice a second


class NoClockError(Exception):
    """There is no clock to be set here; the message says why."""


class WallClock:
    """Off by nothing until it jumps. `folder` gets the library, and the file by which processes are told."""

    def __init__(self, folder: Path) -> None:
        """Raises NoClockError."""
        compiler = shutil.which("cc")
        if compiler is None:
            raise NoClockError("there is no C compiler (cc)")
        self._library = folder / "wall_clock.so"
        self._offset = folder / "offset"
        command = [compiler, "-O2", "-Wall", "-shared", "-fPIC", "-o", self._library, SOURCE, "-ldl"]
        made = subprocess.run(command, check=False, capture_output=True, text=True)
        if made.returncode:
            raise NoClockError(f"{SOURCE.name} does not compile: {made.stderr}")
        self._offset.write_bytes(struct.pack("=q", 0))

    @property
    def environment(self) -> Mapping[str, str]:
        """Of a process that goes by this clock."""
        return {"LD_PRELOAD": str(self._library), "WALL_CLOCK_OFFSET": str(self._offset)}

    def jump(self, seconds: int) -> None:
        """To so many seconds off the real time, for every process at once: they have the file mapped."""
        with self._offset.open("r+b", buffering=0) as file:
            file.write(struct.pack("=q", seconds))

    @staticmethod
    def is_off_by(seconds: int, admin_urls: Mapping[str, str]) -> None:
        """Raises AssertionError unless each of these processes says so, by the Date of its answers."""
        for name, url in admin_urls.items():
            deadline = time.monotonic() + NOTICED_SECONDS
            while abs(_off(url) - seconds) > EXACT_SECONDS:
                assert time.monotonic() < deadline, f"{name} is {_off(url):.0f} s off, not {seconds}"
                time.sleep(0.1)


def _off(url: str) -> float:
    with urlopen(f"{url}/", timeout=5) as response:
        return parsedate_to_datetime(response.headers["date"]).timestamp() - time.time()
