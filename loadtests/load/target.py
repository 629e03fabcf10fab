"""Who is asked, and whether it answers at all: looked at before any load begins."""

import json
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Final

__all__ = ["Target", "TargetError", "check"]

_SECONDS: Final = 30.0


class TargetError(ValueError):
    """A target that cannot be loaded; the message says what it answered."""


@dataclass(frozen=True, slots=True)
class Target:
    """`url` without a path, and the model's name there."""

    url: str
    model: str


def check(target: Target) -> None:
    """Ask it one question. Raises TargetError where no answer comes, or another than 200."""
    if not target.url.startswith(("http://", "https://")):
        raise TargetError(f"{target.url}: must be a URL, as in http://127.0.0.1:8080")
    question = {"model": target.model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 1}
    request = urllib.request.Request(  # noqa: S310  # looked at above
        f"{target.url}/v1/chat/completions",
        json.dumps(question).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:  # noqa: S310  # as above
            response.read()
    except urllib.error.HTTPError as error:
        said = error.read(300).decode("utf-8", "replace").strip()
        raise TargetError(
            f"{target.url} answers {error.code} to a chat with model {target.model!r}: {said}"
        ) from None
    except urllib.error.URLError as error:
        raise TargetError(f"{target.url} cannot be reached: {error.reason}") from None
    except TimeoutError:
        raise TargetError(f"{target.url} did not answer within {_SECONDS:.0f} s") from None
