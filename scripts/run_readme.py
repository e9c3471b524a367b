"""Run a section of the README: ``python scripts/run_readme.py "Your own model"``.

Its commands run one after the other in an empty folder with a copy of ``scripts/own_model``; each must end
well and print what the README shows below it. What a fenced block is for stands behind its fence:

- ``bash``: commands.
- ``python``: code, run in ``scripts/own_model``.
- ``python FILE``: an excerpt of this file.
- ``text``: lines that the block above printed, in their order; ``...`` stands for what is left out.
- ``text about``: the same where numbers depend on the machine, so that any number passes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[1]
_BLOCK = re.compile(r"^```(\w+) ?(.*)\n((?:.*\n)*?)```$", re.MULTILINE)


def main() -> None:
    """Print what the commands print; exit 1 at the first that fails or prints something else."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("section")
    blocks = _BLOCK.findall(section(ROOT / "README.md", parser.parse_args().section))
    if not any(kind == "bash" for kind, _, _ in blocks):
        raise SystemExit("The section has no command to run.")
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "scripts" / "own_model", Path(folder, "scripts", "own_model"))
        printed = ""
        for kind, note, body in blocks:
            if kind == "text":
                require_shown(body, printed, any_number=note == "about")
            elif note:
                require_excerpt(body, ROOT / note)
            else:
                printed = run(kind, body, Path(folder))


def section(readme: Path, title: str) -> str:
    """The text below a heading of the second level, up to the next one."""
    _, _, after = readme.read_text().partition(f"\n## {title}\n")
    if not after:
        raise SystemExit(f"{readme.name} has no section {title!r}.")
    return after.partition("\n## ")[0]


def run(kind: str, body: str, folder: Path) -> str:
    """What a block printed; it is printed here, too."""
    bash = kind == "bash"
    command = ["bash", "-euo", "pipefail", "-c", body] if bash else [sys.executable, "-c", body]
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    print("\n".join(f"$ {line}" for line in body.splitlines()), flush=True)
    done = subprocess.run(
        command,
        cwd=folder if bash else folder / "scripts" / "own_model",
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        text=True,
    )
    print(done.stdout, flush=True)
    if done.returncode:
        raise SystemExit(f"The command ended with exit code {done.returncode}.")
    return done.stdout


def require_shown(shown: str, printed: str, *, any_number: bool) -> None:
    """Stop at the first line that was not printed behind the one before it."""
    left = iter([_plain(line, any_number) for line in printed.splitlines()])
    for line in filter(None, (_plain(line, any_number) for line in shown.splitlines())):
        pattern = re.compile(".*".join(map(re.escape, line.split("..."))))
        if line != "..." and not any(map(pattern.fullmatch, left)):
            raise SystemExit(f"The README shows a line that was not printed there: {line}")


def require_excerpt(body: str, path: Path) -> None:
    """Stop if a file has other code than the README shows of it."""
    if body not in path.read_text():
        raise SystemExit(f"The README's excerpt of {path.relative_to(ROOT)} is not what the file says.")


def _plain(line: str, any_number: bool) -> str:
    """Without what layout adds and, where asked for, without numbers."""
    line = re.sub("─+", "─", " ".join(line.split()))
    return re.sub(r"\d+(\.\d+)?", "0", line) if any_number else line


if __name__ == "__main__":
    main()
