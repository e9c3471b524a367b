"""Help of a command with many options: those of every day by ``--help``, all of them by ``--help-all``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_ALL = "espalier.help_all"


class SectionedCommand(click.Command):
    """A click command whose options stand in sections.

    Args:
        sections: Heading -> names of parameters; ``--help`` shows the first section only, ``--help-all``
            every one, and what none names under *Other*.
    """

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._sections = sections
        self._help_all = click.Option(
            ["--help-all"],
            is_flag=True,
            is_eager=True,
            expose_value=False,
            callback=_help_all,
            help="Show every option.",
        )

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        """The command's own, and the two that ask for help."""
        *own, show_help = super().get_params(ctx)
        return [*own, self._help_all, show_help]

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The options of a section under its heading."""
        options = [p for p in self.get_params(ctx) if isinstance(p, click.Option)]
        own = {option.name: option.get_help_record(ctx) for option in options}
        helps = [own.pop(o.name) for o in options if {"--help", "--help-all"} & set(o.opts)]
        first, *others = self._sections
        shown = {first: [*(own.pop(name) for name in self._sections[first]), *helps]}
        if ctx.meta.get(_ALL):
            shown |= {title: [own.pop(name) for name in self._sections[title]] for title in others}
            shown["Other"] = list(own.values())
        for title, rows in shown.items():
            if rows:
                with formatter.section(title):
                    formatter.write_dl([row for row in rows if row is not None])


def _help_all(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        ctx.meta[_ALL] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()
