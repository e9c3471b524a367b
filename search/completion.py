"""Shell completion as a script with every option in it.

Click's own completion starts the program at each press of a key, and importing torch takes seconds.
"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Mapping

SHELLS = ("bash", "zsh", "fish")

_BASH = """_espalier() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" options=""
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=($(compgen -W "{commands} completion" -- "$current"))
        return
    fi
    case "${{COMP_WORDS[1]}}" in
{cases}
        completion) options="{shells}" ;;
    esac
    case "$current" in
        -*) COMPREPLY=($(compgen -W "$options" -- "$current")) ;;
        *) [ "${{COMP_WORDS[1]}}" = completion ] && COMPREPLY=($(compgen -W "$options" -- "$current")) ;;
    esac
}}
complete -o default -F _espalier espalier"""

_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def completion_script(shell: str, commands: Mapping[str, click.Command]) -> str:
    """What a shell reads at its start.

    Args:
        shell: One of :data:`SHELLS`.
        commands: By name.
    """
    if shell == "fish":
        return _fish(commands)
    cases = "\n".join(
        f'        {name}) options="{" ".join(_long(command))}" ;;' for name, command in commands.items()
    )
    script = _BASH.format(commands=" ".join(commands), cases=cases, shells=" ".join(SHELLS))
    return script if shell == "bash" else _ZSH + script


def _fish(commands: Mapping[str, click.Command]) -> str:
    first = "complete -c espalier -n __fish_use_subcommand -f"
    lines = [
        f"{first} -a {name} -d {shlex.quote(_brief(command.help))}" for name, command in commands.items()
    ]
    lines.append(f"{first} -a completion")
    lines.append(
        f"complete -c espalier -n '__fish_seen_subcommand_from completion' -f -a '{' '.join(SHELLS)}'"
    )
    for name, command in commands.items():
        for option in _options(command):
            seen = f"-n '__fish_seen_subcommand_from {name}'"
            takes = "" if option.is_flag else " -r"
            names = " ".join(f"-l {long[2:]}" for long in option.opts if long.startswith("--"))
            lines.append(f"complete -c espalier {seen} {names}{takes} -d {shlex.quote(_brief(option.help))}")
    return "\n".join(lines)


def _options(command: click.Command) -> list[click.Option]:
    found = command.get_params(click.Context(command))
    return [option for option in found if isinstance(option, click.Option) and not option.hidden]


def _long(command: click.Command) -> list[str]:
    return [name for option in _options(command) for name in option.opts if name.startswith("--")]


def _brief(text: str | None) -> str:
    """The first sentence, in one line."""
    return " ".join((text or "").split()).partition(". ")[0].rstrip(".")
