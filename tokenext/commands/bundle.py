"""`tokenext bundle`: a model directory made ahead of time."""

import argparse
import sys
from pathlib import Path
from typing import Final

import orjson

from extproc.settings_file import SettingsError
from extproc.verdict import JsonValue
from tokenext.bundling import Bundled, BundleOptions, make_bundle
from tokenext.canonical import Canonicalizer, ThroughTransformers, transformers_version
from tokenext.commands.command import OK, CommandError, Commands, add_command

__all__ = ["add"]

_DESCRIPTION: Final = """\
Make a self-contained model directory: canonical tokenizer, chat templates, special tokens, and a manifest
(bundle.json) with a digest over all of it. `serve` verifies it, and needs neither transformers nor a network.

  tokenext bundle /models/Qwen3-8B -o /bundles/qwen3
  tokenext bundle Qwen/Qwen3-8B@main -o /bundles/qwen3       # the branch becomes a commit, which is recorded

vLLM loads tokenizers through transformers, which changes some of them on the way; NVIDIA Dynamo reads
tokenizer.json. A bundle holds both, and `serve` takes the one that the model's engine has. For vLLM, install
the version of transformers that it has: pip install 'tokenext-chain[bundle]' 'transformers==...'
"""
_NOTES: Final = """\
The same source and versions give the same bytes. DIR is replaced only if it is a bundle.

exit status: 0 bundled, 2 not bundled (no such model, hub not reached, no usable tokenizer, DIR in use)
"""


def add(commands: Commands) -> None:
    """Declare the subcommand."""
    parser = add_command(
        commands,
        "bundle",
        says="make a model directory ahead of time, for serve",
        description=_DESCRIPTION,
        notes=_NOTES,
        run=_run,
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="a model directory, or a hub id: org/name[@revision]"
    )
    parser.add_argument(
        "-o", "--output", required=True, type=Path, metavar="DIR", help="where the bundle goes"
    )
    parser.add_argument(
        "--tokenizer",
        choices=("auto", "transformers", "file"),
        default="auto",
        help="transformers' tokenizer beside the file, or the file alone (auto: by what is installed)",
    )
    parser.add_argument("--chat-template", type=Path, metavar="FILE", help="in the place of the model's own")
    parser.add_argument(
        "--chat-template-kwargs",
        default="{}",
        metavar="JSON",
        help="what templates are always given, as in '{\"enable_thinking\": false}'",
    )
    parser.add_argument(
        "--max-length",
        type=_positive,
        metavar="TOKENS",
        help="the engine's longest prompt, if not that of config.json",
    )


def _run(options: argparse.Namespace) -> int:
    bundled = make_bundle(
        options.source,
        options.output,
        _canonicalizer(options.tokenizer),
        BundleOptions(options.chat_template, _kwargs(options.chat_template_kwargs), options.max_length),
    )
    _tell(bundled, options.output)
    return OK


def _canonicalizer(wanted: str) -> Canonicalizer | None:
    installed = transformers_version()
    if wanted == "file":
        return None
    if installed is not None:
        return ThroughTransformers()
    install = "pip install 'tokenext-chain[bundle]'"
    if wanted == "transformers":
        raise CommandError(f"--tokenizer transformers: transformers is not installed: {install}")
    print(
        f"tokenext: transformers is not installed, so only tokenizer.json is bundled: enough for Dynamo; "
        f"for vLLM {install}",
        file=sys.stderr,
    )
    return None


def _kwargs(text: str) -> dict[str, JsonValue]:
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        value = None
    if not isinstance(value, dict):
        raise SettingsError("--chat-template-kwargs", "must be a JSON object")
    return value


def _tell(bundled: Bundled, output: Path) -> None:
    manifest = bundled.manifest
    versions = ", ".join(f"{name} {number}" for name, number in sorted(manifest.versions.items()))
    print(f"{output}: {manifest.digest}")
    print(f"  {', '.join(path for path in manifest.files if path.startswith('tokenizer'))} ({versions})")
    for name, entry in manifest.chat_templates.items():
        print(f"  chat template {name}: {entry.file}, content as {entry.content_format.value}")
    if not manifest.chat_templates:
        print("  no chat template: only /v1/completions is tokenized")
    print(f"  longest prompt {manifest.max_length or 'not known'}, prompts by {manifest.renderer.value}")
    if manifest.origin.revision:
        print(f"  from {manifest.origin.hub} at {manifest.origin.revision}")
    for name in bundled.differing:
        print(
            f"tokenext: {name} is another by transformers than by tokenizer_config.json, whose word is taken",
            file=sys.stderr,
        )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a number of 1 or more")
    return int(text)
