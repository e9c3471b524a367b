"""Runs a command so that bad input ends in one line on stderr and exit code 2."""

from __future__ import annotations

import errno
import os
import sys
from typing import TYPE_CHECKING, Any

import click

from evaluators.options import OptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

BAD_INPUT = 2
INTERRUPTED = 1

#: What a disk or its owner refuses is no defect of ours.
_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM})


class StoppedError(RuntimeError):
    """A run can not go on, and what it has is on record; the message is one line."""


class CutOffError(OptionError):
    """A run lost what an option names, through nobody's fault; it can be continued."""


class FilledPath(click.Path):
    """A path that is not the empty text, which Python would take for the current folder."""

    def convert(
        self, value: str | os.PathLike[str], param: click.Parameter | None, ctx: click.Context | None
    ) -> Any:
        """The path, or one line that names the option."""
        if not os.fspath(value):
            self.fail("'' names no file or folder.", param, ctx)
        return super().convert(value, param, ctx)


def is_refusal(error: BaseException) -> bool:
    """Whether a disk that is full, or whoever owns it, has refused something."""
    return isinstance(error, OSError) and error.errno in _REFUSALS


def run_command(
    command: click.Command, name: str, argv: Sequence[str] | None = None, program: str | None = None
) -> int:
    """Run ``command`` and turn what a user can mend into one line.

    Args:
        command: What to run; an integer that it returns is the exit code.
        name: Before every message, e.g. ``search.pick``.
        argv: Arguments without the program's name; those of the process when ``None``.
        program: Shown in ``--help``; ``python -m`` and the name when ``None``.

    Returns:
        Exit code: 0 done, 2 bad input, 1 interrupted or stopped, or a disk is full or may not be written to.
        Any other exception is a defect and propagates.
    """
    try:
        outcome = command.main(
            args=None if argv is None else list(argv),
            prog_name=program or f"python -m {name}",
            standalone_mode=False,
        )
    except click.ClickException as error:
        return _say(name, error.format_message(), BAD_INPUT)
    except (CutOffError, StoppedError) as error:
        return _say(name, str(error), INTERRUPTED)
    except OptionError as error:
        return _say(name, str(error), BAD_INPUT)
    except OSError as error:
        if not is_refusal(error):
            raise
        where = "" if error.filename is None else f"{error.filename}: "
        return _say(name, f"{where}{error.strerror}; mend that, then call it again.", INTERRUPTED)
    except (click.Abort, KeyboardInterrupt):
        return _say(name, "interrupted.", INTERRUPTED)
    return outcome if isinstance(outcome, int) else 0


def _say(name: str, message: str, code: int) -> int:
    print(f"{name}: {' '.join(message.splitlines())}", file=sys.stderr)
    return code
