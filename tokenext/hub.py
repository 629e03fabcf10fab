"""Models by hub id: fetches their tokenizer files, and says plainly why it cannot."""

import re
from pathlib import Path
from typing import Final

from extproc.settings_file import SettingsError
from tokenext.model_files import FILE_PATTERNS

__all__ = ["locate"]

_HUB_ID: Final = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[\w./-]+))?")


def locate(model_source: str, *, source: str, key: str) -> Path:
    """The directory of a model: the one that is named, or the hub's copy. Raises SettingsError.

    `source` and `key` are what errors name.
    """
    directory = Path(model_source)
    if directory.is_dir():
        return directory
    match = _HUB_ID.fullmatch(model_source)
    if match is None or model_source.startswith("."):
        raise SettingsError(
            source, f"{model_source!r} is neither a directory nor a hub id (org/name[@revision])", key
        )
    return _download(match["repo"], match["revision"], source=source, key=key)


def _download(repository: str, revision: str | None, *, source: str, key: str) -> Path:
    # Imported here because it takes time and only hub ids need it.
    from huggingface_hub import errors, snapshot_download  # noqa: PLC0415

    where = f"{repository}@{revision}" if revision else repository
    try:
        found = snapshot_download(repository, revision=revision, allow_patterns=list(FILE_PATTERNS))
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
        problem = "is neither a directory, nor in the local hub cache, and the hub cannot be reached"
    else:
        return Path(found)
    raise SettingsError(source, f"{where} {problem}", key)
