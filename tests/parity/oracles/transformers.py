"""transformers as the oracle: apply_chat_template and the tokenizer's call, in a process of its own."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Any, Final, Self

from tests.parity.corpus.case import CHAT, Case
from tests.parity.fetch import CACHE, TRANSFORMERS, oracle_python
from tests.parity.models import ParityModel
from tests.parity.oracles import Answer, OracleError
from tokenext.canonical import Canonical

__all__ = ["TransformersOracle"]

_WORKER: Final = Path(__file__).with_name("transformers_worker.py")
_STOP_SECONDS: Final = 10.0


class TransformersOracle:
    """One worker process for all models. Requests go one after another; it is bound by one CPU anyway."""

    name: Final = f"transformers {TRANSFORMERS}"
    profile: Final = "transformers"

    def __enter__(self) -> Self:
        self._log = CACHE / "logs" / "transformers.log"
        self._log.parent.mkdir(parents=True, exist_ok=True)
        quiet = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "PYTHONUNBUFFERED": "1"}
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                (str(oracle_python()), "-I", str(_WORKER)),  # -I: this folder must not shadow the package
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env={**os.environ, **quiet, "TOKENIZERS_PARALLELISM": "false"},
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.close()
            self._process.wait(_STOP_SECONDS)
        except (OSError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def answers(self, model: ParityModel, cases: Sequence[Case]) -> list[Answer]:
        return list(self._answers(str(model.folder()), cases))

    def read(self, directory: Path) -> Canonical:
        """The tokenizer as transformers runs it: the oracle is a Canonicalizer, for `tokenext bundle`."""
        with TemporaryDirectory() as scratch:
            path = Path(scratch) / "tokenizer.json"
            self._ask({"do": "canonical", "folder": str(directory), "path": str(path)})
            return Canonical(path.read_bytes(), {"transformers": TRANSFORMERS})

    def _answers(self, folder: str, cases: Sequence[Case]) -> Iterator[Answer]:
        for case in cases:
            kind = "chat" if case.path == CHAT else "completion"
            answer = self._ask({"do": kind, "folder": folder, "body": case.body("m")})
            ids = answer.get("ids")
            yield Answer(None if ids is None else tuple(ids), answer.get("detail", ""))

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            raise OracleError(
                f"the transformers oracle ended; see {self._log.name} in {self._log.parent.name}"
            )
        answer: dict[str, Any] = json.loads(line)
        return answer
