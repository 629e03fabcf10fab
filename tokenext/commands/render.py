"""`tokenext render`: what becomes of one request, to look at."""

import argparse
import os
import sys
from pathlib import Path
from typing import Final

import msgspec
import orjson

from extproc.settings_file import SettingsError
from extproc.verdict import JsonValue
from tokenext import settings as settings_module
from tokenext.commands.command import OK, CommandError, Commands, add_command, now
from tokenext.commands.rendering_text import Style, as_text
from tokenext.commands.selection import select
from tokenext.declined import Declined
from tokenext.hub import locate
from tokenext.json_object import JsonObject, NotAnObjectError, join, read
from tokenext.loading import LoadedModel, load_model
from tokenext.openai import Api
from tokenext.rendering import Rendering, render
from tokenext.settings import ModelSettings

__all__ = ["add"]

_DECLINED: Final = 1

_DESCRIPTION: Final = """\
Show what becomes of a request: the rendered prompt, every token with its id and its place, special tokens,
cut points of the prefix cache, which engine tokenizes and why, and whether the ids would be handed over.

  tokenext render request.json --config tokenext.yaml        # the model that the request names
  tokenext render request.json --source /bundles/qwen3       # a model directory, no settings file
  curl ... | tokenext render - --source /bundles/qwen3 --json
"""
_NOTES: Final = """\
Colours show token borders on a terminal (NO_COLOR turns them off). Control characters are shown escaped.

exit status: 0 tokenized, 1 such a request is not tokenized (it says why), 2 the request, the settings or the
model cannot be used
"""


def add(commands: Commands) -> None:
    """Declare the subcommand."""
    parser = add_command(
        commands,
        "render",
        says="show the prompt and the tokens of a request",
        description=_DESCRIPTION,
        notes=_NOTES,
        run=_run,
    )
    parser.add_argument("request", metavar="REQUEST.json", help="the request's body; - reads standard input")
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--config", type=Path, metavar="FILE", help="the settings file (YAML)")
    where.add_argument("--source", metavar="DIR", help="a model directory, a bundle, or a hub id")
    parser.add_argument(
        "--model", metavar="NAME", help="with --config: a model of it, if not the one that the request names"
    )
    parser.add_argument(
        "--profile", metavar="NAME", help="with --source: whose way to a prompt, as `profile` of the settings"
    )
    parser.add_argument(
        "--path", choices=[*Api], default=Api.CHAT.value, help="where it is posted (default: %(default)s)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object, for scripts")


def _run(options: argparse.Namespace) -> int:
    body = _body(options.request)
    loaded = _load(options, body)
    if "model" not in body.fields:  # who looks at a prompt need not invent one
        body = read(join({"model": b'"model"', **body.fields}))
    try:
        rendering = render(loaded, Api(options.path), body)
    except Declined as declined:
        if options.json:
            _print_json({"tokenized": False, "reason": declined.reason.value})
        else:
            print(f"tokenext: such a request is not tokenized: {declined.reason}", file=sys.stderr)
        return _DECLINED
    if options.json:
        _print_json(_as_json(loaded, rendering))
    else:
        coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
        _print("\n".join(as_text(loaded, rendering, Style(coloured=coloured))))
    return OK


def _body(path: str) -> JsonObject:
    try:
        text = sys.stdin.buffer.read() if path == "-" else Path(path).read_bytes()
    except OSError as error:
        raise CommandError(f"{path}: cannot be read: {error.strerror}") from None
    try:
        return read(text)
    except NotAnObjectError:
        where = "standard input" if path == "-" else path
        raise CommandError(f"{where}: is not a JSON object") from None


def _load(options: argparse.Namespace, body: JsonObject) -> LoadedModel:
    if options.source is not None:
        if options.model is not None:
            raise CommandError("--model goes with --config")
        directory = locate(options.source, source="--source", key=None)
        return load_model(_settings(directory, options.profile), "model", source="--source", now=now)
    if options.profile is not None:
        raise CommandError("--profile goes with --source; with --config it is the model's own")
    source = str(options.config)
    settings = settings_module.load(options.config)
    number, model = select(settings, options.model or _model_of(body), source=source)
    return load_model(model, f"models[{number}]", source=source, now=now)


def _settings(directory: Path, profile: str | None) -> ModelSettings:
    """As a settings file would say it, so that its words and its checks hold here too."""
    fields = {"name": "model", "source": str(directory)} | ({"profile": profile} if profile else {})
    try:
        return msgspec.convert(fields, ModelSettings)
    except msgspec.ValidationError as error:
        raise SettingsError("--profile", str(error).partition(" - at ")[0]) from None


def _model_of(body: JsonObject) -> str:
    try:
        name = orjson.loads(bytes(body.fields.get("model", b"null")))
    except orjson.JSONDecodeError:
        name = None
    if not isinstance(name, str):
        raise SettingsError("request", "names no model: give --model", "model")
    return name


def _as_json(loaded: LoadedModel, rendering: Rendering) -> dict[str, JsonValue]:
    model, record = loaded.model, rendering.record
    return {
        "tokenized": True,
        "model": model.name,
        "profile": model.profile.name,
        "handoff": model.handoff.value,
        "engine": model.engine.name,
        "engine_reason": model.engine_reason,
        "engine_exact": record.engine_exact,
        "reason": record.reason,
        "digest": record.tokenizer_digest,
        "prompt": rendering.prompt,
        "token_ids": list(record.token_ids.as_array()),
        "pieces": [
            {
                "id": piece.id,
                "token": piece.token,
                "text": rendering.prompt[piece.start : piece.end],
                "start": piece.start,
                "end": piece.end,
                "kind": piece.kind.value,
            }
            for piece in rendering.pieces
        ],
        "cut_points": list(rendering.cuts),
    }


def _print_json(value: dict[str, JsonValue]) -> None:
    _print(orjson.dumps(value).decode())


def _print(text: str) -> None:
    try:
        print(text, flush=True)
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
