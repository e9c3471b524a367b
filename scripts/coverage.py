"""Which models can be pruned, and how far? ``python scripts/coverage.py`` asks all of the zoo.

All classification, segmentation and detection models of torchvision, every module of timm and
architectures of Hugging Face transformers, with random weights and small inputs; nothing is downloaded.
Each model has a process and a core of its own. Needs timm, transformers and, for the comparison,
torch-pruning:

    python scripts/coverage.py --json runs/coverage.jsonl --resume --out scripts/reports/DATE-coverage.md
    python scripts/coverage.py --filter 'timm:vit*' --no-peer --verbose
"""

from __future__ import annotations

import argparse
import importlib.util
import tempfile
from pathlib import Path

from modelzoo.catalogue import FAMILIES, selected
from modelzoo.pool import Job, run
from modelzoo.records import append, load
from modelzoo.report import markdown
from modelzoo.terminal import details, summary, table
from modelzoo.timm_models import missing_modules
from modelzoo.verdict import Verdict
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn


def main() -> None:
    options = _options()
    console = Console()
    if not console.is_terminal:
        console = Console(width=200)
    entries = selected(options.family, options.filter)
    if not entries:
        raise SystemExit("coverage: no model of this name.")
    if options.list:
        for entry in entries:
            console.print(f"{entry.label} ({entry.kind})", highlight=False)
        console.print(f"{len(entries)} models; modules of timm without one: {sorted(missing_modules())}")
        return
    with tempfile.TemporaryDirectory() as folder:
        path = options.json or Path(folder) / "records.jsonl"
        if path.exists() and not options.resume:
            raise SystemExit(f"coverage: {path} exists; --resume goes on with it.")
        done = load(path)
        roles = {} if options.only_peer else {"ours": options.limit}
        roles |= {} if options.no_peer else {"peer": options.peer_limit}
        jobs = [
            Job(entry.label, role, limit)
            for entry in entries
            for role, limit in roles.items()
            if (entry.label, role) not in done
        ]
        by_label = {entry.label: entry for entry in entries}
        with _progress(console) as progress:
            task = progress.add_task("", total=len(jobs))
            for job, record in run(
                jobs,
                at_once=options.jobs,
                memory_gb=options.memory_gb,
                on_start=lambda job: progress.update(task, description=f"{job.label} {job.role}"),
            ):
                append(path, job.label, job.role, record)
                progress.advance(task)
                if options.verbose:
                    progress.console.print(details(by_label[job.label], job.role, record), highlight=False)
        records = load(path)
    verdicts = [v for v in (Verdict.of(entry, records) for entry in entries) if v is not None]
    console.print(table(verdicts))
    console.print(summary(verdicts))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(markdown(verdicts))


def _progress(console: Console) -> Progress:
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TextColumn("{task.description}"))
    return Progress(*columns, console=console, transient=True)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--family", action="append", choices=FAMILIES, default=[], help="only this one")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only models whose name or family:name matches; may be repeated",
    )
    parser.add_argument("--list", action="store_true", help="print the names and stop")
    parser.add_argument("--jobs", type=int, default=1, help="models at once")
    parser.add_argument("--limit", type=float, default=120.0, help="seconds per stage of a model")
    parser.add_argument("--peer-limit", type=float, default=60.0, help="the same for torch-pruning")
    parser.add_argument("--memory-gb", type=float, default=18.0, help="a model that needs more is stopped")
    parser.add_argument("--no-peer", action="store_true", help="without torch-pruning")
    parser.add_argument("--only-peer", action="store_true", help="torch-pruning alone, into --json")
    parser.add_argument("--json", type=Path, help="records, one line each")
    parser.add_argument("--resume", action="store_true", help="go on with the file of --json")
    parser.add_argument("--out", type=Path, help="the report, Markdown")
    parser.add_argument("--verbose", action="store_true", help="warnings and frozen layers of each model")
    options = parser.parse_args()
    if options.resume and options.json is None:
        parser.error("--resume goes on with the file that --json names")
    if options.only_peer and (options.no_peer or options.json is None):
        parser.error("--only-peer needs --json and excludes --no-peer")
    if not options.no_peer and not options.list and importlib.util.find_spec("torch_pruning") is None:
        parser.error("torch-pruning is not installed; --no-peer leaves it out")
    return options


if __name__ == "__main__":
    main()
