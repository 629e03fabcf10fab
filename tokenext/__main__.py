"""The command line of tokenext: one subcommand for each thing that a person does with a model."""

import argparse
import sys
from collections.abc import Sequence
from typing import Final

from extproc.settings_file import SettingsError
from tokenext.commands import bundle, render, serve, verify
from tokenext.commands.command import UNUSABLE, CommandError

_DESCRIPTION: Final = """\
tokenext renders and tokenizes OpenAI requests once, in front of the Endpoint Picker.

Envoy calls it as an ext_proc filter. It attaches the token ids to the request as dynamic metadata, and, for
models with a hand-off, puts them into the body, so that the model server need not tokenize again. Whatever it
cannot tokenize passes through unchanged.
"""

_NOTES: Final = """\
A model's way: `bundle` it, look at a request with `render`, `verify` it with its engine, `serve` it.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="tokenext",
        description=_DESCRIPTION,
        epilog=_NOTES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for command in (serve, bundle, verify, render):
        command.add(commands)
    options = parser.parse_args(arguments)
    try:
        status: int = options.run(options)
    except SettingsError as error:
        print(f"tokenext: {error}", file=sys.stderr)
        return UNUSABLE
    except CommandError as error:
        print(f"tokenext: {error}", file=sys.stderr)
        return error.status
    return status


if __name__ == "__main__":
    sys.exit(main())
