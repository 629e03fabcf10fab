"""`tokenext verify`: our ids beside those of a running engine."""

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import msgspec
import orjson

from extproc.settings_file import SettingsError
from extproc.token_metadata import TokenIds
from tokenext import settings as settings_module
from tokenext.catalog import Model
from tokenext.commands.command import OK, UNUSABLE, CommandError, Commands, add_command, now
from tokenext.commands.selection import select
from tokenext.loading import load_model
from tokenext.oracles.opening import open_oracle
from tokenext.parity import Agreement, Finding, OracleKind, ProbeResult, Report, first_difference
from tokenext.probe_corpus import PROBES
from tokenext.settings import ModelSettings
from tokenext.verification import verify

__all__ = ["add"]

_MISMATCH: Final = 1

_DESCRIPTION: Final = """\
Send a small corpus of requests to a running engine, and compare its token ids with ours.

  tokenext verify --config tokenext.yaml --model qwen3 --engine http://127.0.0.1:8000

dynamo  a frontend with --router-mode kv and a worker: answers with its ids, nothing is computed
vllm    /v1/chat/completions/render (--enable-scale-out), else /tokenize for what that can say

`serve` does the same by itself for models with `verify: {engine: URL}` in the settings file.
"""
_NOTES: Final = """\
equal      our ids are exact, and the engine's own
mismatch   our ids would have been handed over, and are others than the engine's
inexact    we promise nothing: the ids are good to route by, and never handed over
declined   we do not tokenize such a request
refused    the engine answers with an error of its own, which clients get
not asked  the engine cannot show its ids for such a request

exit status: 0 no mismatch, 1 a mismatch (the smallest is written to --output), 2 the engine or the settings
cannot be used
"""


def add(commands: Commands) -> None:
    """Declare the subcommand."""
    parser = add_command(
        commands,
        "verify",
        says="compare our token ids with those of a running engine",
        description=_DESCRIPTION,
        notes=_NOTES,
        run=_run,
    )
    parser.add_argument("--config", required=True, type=Path, metavar="FILE", help="the settings file (YAML)")
    parser.add_argument("--model", required=True, metavar="NAME", help="a name or alias of the settings file")
    parser.add_argument("--engine", metavar="URL", help="the engine, if not that of the model's `verify`")
    parser.add_argument("--kind", choices=[*OracleKind], help="its kind, if not that of the model's profile")
    parser.add_argument("--engine-model", metavar="NAME", help="the engine's name for it (default: --model)")
    parser.add_argument(
        "--output",
        type=Path,
        default=Path("tokenext-mismatch.json"),
        metavar="FILE",
        help="where the smallest mismatch goes (default: %(default)s)",
    )


def _run(options: argparse.Namespace) -> int:
    settings = settings_module.load(options.config)
    number, chosen = select(settings, options.model, source=str(options.config))
    key = f"models[{number}]"
    wanted = _with_engine(chosen, options)
    model = load_model(wanted, key, source=str(options.config), now=now).model
    asked = model.verification
    assert asked is not None
    report = asyncio.run(_verify(model, asked.kind, asked.engine, asked.engine_model))
    print("\n".join(_table(report.results)))
    print(_summary(report, model, asked.engine))
    if model.doubt is not None:
        print(f"Whatever they show, ids are not handed over ({model.doubt}): {model.engine_reason}")
    if report.finding is Finding.INCONCLUSIVE:
        raise CommandError(report.problem)
    smallest = report.smallest_mismatch
    if smallest is None:
        return OK
    _write(options.output, smallest, asked.engine_model)
    print(f"The smallest mismatch, probe {smallest.number}, is in {options.output}")
    return _MISMATCH


def _with_engine(chosen: ModelSettings, options: argparse.Namespace) -> ModelSettings:
    given = chosen.verify
    engine = options.engine or (given.engine if given else None)
    if engine is None:
        raise CommandError(
            f"--engine is needed: {chosen.name} has no `verify` in the settings file", UNUSABLE
        )
    fields = {
        "engine": engine,
        "kind": options.kind or (given.kind if given else None),
        "model": options.engine_model or (given.model if given else None) or options.model,
    }
    try:
        verify_settings = msgspec.convert(fields, settings_module.VerifySettings)
    except msgspec.ValidationError:
        raise SettingsError("--engine", "must be a URL, as in http://127.0.0.1:8000") from None
    return msgspec.structs.replace(chosen, verify=verify_settings)


async def _verify(model: Model, kind: OracleKind, engine: str, engine_model: str) -> Report:
    async with open_oracle(kind, engine) as oracle:
        return await verify(model, oracle, PROBES, engine_model=engine_model)


def _table(results: Sequence[ProbeResult]) -> list[str]:
    width = max((len(result.name) for result in results), default=0)
    return [
        f"{result.number:>4}  {result.name:<{width}}  {result.agreement:<9}  {result.detail}".rstrip()
        for result in results
    ]


def _summary(report: Report, model: Model, engine: str) -> str:
    counts = ", ".join(f"{report.count(each)} {each}" for each in Agreement if report.count(each))
    asked = f"{len(report.results)} of {len(PROBES)} probes"
    return f"{model.name} at {engine}: {report.finding}: {asked}: {counts or 'none answered'}"


def _write(path: Path, mismatch: ProbeResult, engine_model: str) -> None:
    assert mismatch.ours is not None
    assert mismatch.theirs is not None
    probe = PROBES[mismatch.number - 1]
    document = {
        "probe": mismatch.number,
        "name": mismatch.name,
        "path": probe.api.value,
        "request": probe.body(engine_model).decode(),
        "first_difference": first_difference(mismatch.ours, mismatch.theirs),
        "ours": _list(mismatch.ours),
        "theirs": _list(mismatch.theirs),
    }
    try:
        path.write_bytes(orjson.dumps(document, option=orjson.OPT_INDENT_2) + b"\n")
    except OSError as error:
        raise CommandError(f"{path}: cannot be written: {error.strerror}", _MISMATCH) from None


def _list(ids: TokenIds) -> list[int]:
    return ids.as_array().tolist()
