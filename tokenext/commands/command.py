"""What subcommands share: how one is declared, how it ends, and the clock."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

__all__ = ["OK", "UNUSABLE", "CommandError", "Commands", "add_command", "now"]

if TYPE_CHECKING:  # argparse gives the type no public name
    Commands = argparse._SubParsersAction[argparse.ArgumentParser]  # noqa: SLF001
else:
    Commands = object

OK: Final = 0
UNUSABLE: Final = 2  # argparse ends with it too


class CommandError(Exception):
    """The command cannot do what it was asked to; the message is one line for a person."""

    def __init__(self, problem: str, status: int = UNUSABLE) -> None:
        super().__init__(problem)
        self.status = status


def add_command(
    commands: Commands,
    name: str,
    *,
    says: str,
    description: str,
    notes: str,
    run: Callable[[argparse.Namespace], int],
) -> argparse.ArgumentParser:
    """A subcommand that `run` runs and ends with the exit status of."""
    parser = commands.add_parser(
        name,
        help=says,
        description=description,
        epilog=notes,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=run)
    return parser


def now() -> datetime:
    """The time that chat templates show."""
    return datetime.now(UTC)
