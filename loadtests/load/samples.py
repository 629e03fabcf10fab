"""One line per request of a run: what reports are made of."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

__all__ = ["MAX_GAPS", "Sample", "SamplesError", "read", "write_line"]


MAX_GAPS: Final = 1_000


class SamplesError(ValueError):
    """A file of samples that cannot be read; the message names the file and the line."""


class Sample(msgspec.Struct, frozen=True, omit_defaults=True):
    """A request as the client saw it. `at` is in seconds since the run began, `first` and `seconds` since it
    was sent.

    `gaps_us`: microseconds between the pieces of a stream, the first MAX_GAPS of them. Token counts are the
    server's, 0 where it told none. `late`: how much later than its trace says it was sent. `left`: the client
    left on purpose. `failure` is "" or what went wrong, in a few words of ours.
    """

    at: float
    name: str
    seconds: float
    body_bytes: int
    first: float | None = None
    gaps_us: tuple[int, ...] = ()
    prompt_tokens: int = 0
    cached_tokens: int = 0
    completion_tokens: int = 0
    late: float = 0.0
    left: bool = False
    failure: str = ""


_ENCODER: Final = msgspec.json.Encoder()
_DECODER: Final = msgspec.json.Decoder(Sample)


def write_line(sample: Sample) -> bytes:
    return _ENCODER.encode(sample) + b"\n"


def read(path: Path) -> Iterator[Sample]:
    """Raises SamplesError."""
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        raise SamplesError(f"{path}: cannot be read: {error.strerror}") from None
    for number, line in enumerate(lines, 1):
        try:
            yield _DECODER.decode(line)
        except msgspec.MsgspecError as error:
            raise SamplesError(f"{path}: line {number}: {error}") from None
