"""``espalier COMMAND``, or ``python -m search COMMAND``: every command under one name."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING

import click

from search.command import run_command
from search.completion import SHELLS, completion_script

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Command -> module, which defines it under the same name, and what it does. Only the one that is asked for
#: is imported: torch takes seconds.
COMMANDS = {
    "inspect": ("search.inspect.__main__", "What may be pruned in a model, before any search."),
    "run": ("search.run", "Search smaller networks and write a run folder."),
    "report": ("search.report.__main__", "Write the report of a run folder again."),
    "latency": ("search.latency", "Measure the latency of a front's networks on this machine."),
    "pick": ("search.pick.__main__", "Pick a network of a front, look at it, take it away."),
}

_HELP = """Espalier: pruning as neural architecture search.

\b
  espalier inspect --task cifar10 --model resnet20
  espalier run --budget 40
  espalier pick runs/digits --max-macs 50% --export architecture

`espalier COMMAND --help` says more. Completion: eval "$(espalier completion bash)" in ~/.bashrc.
"""


class _Commands(click.Group):
    """Imports a command when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        return [*COMMANDS, "completion"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load(cmd_name) if cmd_name in COMMANDS else super().get_command(ctx, cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        del ctx
        rows = [(name, what) for name, (_, what) in COMMANDS.items()]
        with formatter.section("Commands"):
            formatter.write_dl([*rows, ("completion", "Print a script that completes commands in a shell.")])


@click.group(cls=_Commands, help=_HELP, context_settings={"max_content_width": 110})
def espalier() -> None:
    """Every command under one name; its help is above."""


@espalier.command()
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print a script that completes commands and options: bash, zsh or fish."""
    click.echo(completion_script(shell, {name: load(name) for name in COMMANDS}))


def load(name: str) -> click.Command:
    """The command of this name."""
    module, _ = COMMANDS[name]
    command: click.Command = getattr(importlib.import_module(module), name)
    return command


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command that the first argument names."""
    argv = list(sys.argv[1:] if argv is None else argv)
    if argv and argv[0] in COMMANDS:
        return run_command(load(argv[0]), f"search.{argv[0]}", argv[1:], program=f"espalier {argv[0]}")
    return run_command(espalier, "espalier", argv or ["--help"], program="espalier")


if __name__ == "__main__":
    sys.exit(main())
