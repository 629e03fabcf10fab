"""Models by hub id: fetches their tokenizer files, and says plainly why it cannot."""

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from extproc.settings_file import SettingsError
from tokenext.model_files import FILE_PATTERNS

__all__ = ["Pinned", "locate", "locate_pinned"]

_HUB_ID: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


@dataclass(frozen=True, slots=True)
class Pinned:
    """A model's directory; `repository` and `revision`, a commit, are None for one that is not the hub's."""

    directory: Path
    repository: str | None = None
    revision: str | None = None


def locate(model_source: str, *, source: str, key: str | None) -> Path:
    """The directory of a model: the one that is named, or the hub's copy. Raises SettingsError.

    `source` and `key` are what errors name.
    """
    directory = Path(model_source)
    if directory.is_dir():
        return directory
    repository, revision = _parse(model_source, source=source, key=key)
    # Imported here because it takes time and only hub ids need it.
    from huggingface_hub import snapshot_download  # noqa: PLC0415

    with _hub_errors(model_source, source=source, key=key):
        return Path(snapshot_download(repository, revision=revision, allow_patterns=list(FILE_PATTERNS)))


def locate_pinned(model_source: str, *, patterns: Sequence[str], source: str, key: str | None) -> Pinned:
    """As `locate`, at a commit that the hub names now, with every file that the patterns name.

    A local copy alone is not enough: nobody knows which of the files it lacks.
    """
    directory = Path(model_source)
    if directory.is_dir():
        return Pinned(directory)
    repository, revision = _parse(model_source, source=source, key=key)
    from huggingface_hub import HfApi, snapshot_download  # noqa: PLC0415  # as above

    with _hub_errors(model_source, source=source, key=key, cached=False):
        commit = HfApi().model_info(repository, revision=revision).sha
        found = snapshot_download(repository, revision=commit, allow_patterns=list(patterns))
    return Pinned(Path(found), repository, commit)


def _parse(model_source: str, *, source: str, key: str | None) -> tuple[str, str | None]:
    match = _HUB_ID.fullmatch(model_source)
    if match is None or model_source.startswith("."):
        raise SettingsError(
            source, f"{model_source!r} is neither a directory nor a hub id (org/name[@revision])", key
        )
    return match["repo"], match["revision"]


@contextmanager
def _hub_errors(where: str, *, source: str, key: str | None, cached: bool = True) -> Iterator[None]:
    from huggingface_hub import errors  # noqa: PLC0415  # as above

    try:
        yield
    except errors.GatedRepoError:
        problem = "is gated: accept its terms on the hub and set HF_TOKEN"
    except errors.RepositoryNotFoundError:
        problem = "does not exist on the hub, or is private: check the name, or set HF_TOKEN"
    except errors.RevisionNotFoundError:
        problem = "does not exist on the hub: check the revision"
    except errors.HFValidationError:
        problem = "is not a hub id (org/name[@revision])"
    # The library also lets its HTTP client's errors through, which are of no one type across its versions.
    except Exception:  # noqa: BLE001
        copy = ", nor in the local hub cache," if cached else ","
        problem = f"is no directory{copy} and the hub cannot be reached"
    else:
        return
    raise SettingsError(source, f"{where} {problem}", key)
