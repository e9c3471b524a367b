"""The report: what was aimed at, what misses it by name, families in one table, all models in others."""

from __future__ import annotations

import math
import platform
import statistics
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from modelzoo.verdict import Verdict

#: By family, in the order of the report.
FAMILY_TITLES = {
    "torchvision": "torchvision, classification",
    "segmentation": "torchvision, segmentation",
    "detection": "torchvision, backbones and necks of detectors",
    "timm": "timm",
    "transformers": "transformers",
}


def in_family(verdicts: Iterable[Verdict], family: str) -> list[Verdict]:
    """The models of one family."""
    return [verdict for verdict in verdicts if verdict.entry.family == family]


def family_row(verdicts: list[Verdict]) -> dict[str, str]:
    """The numbers that are aimed at; nothing where no model was measured."""
    if not verdicts:
        return {}
    count = len(verdicts)
    seconds = [v.ours["seconds"] for v in verdicts if v.traced] or [math.nan]
    works = [v for v in verdicts if v.peer_works]
    compared = [v for v in verdicts if v.peer is not None]
    return {
        "models": str(count),
        "traced": f"{sum(v.traced for v in verdicts) / count:.1%}",
        "wrong": str(sum(bool(v.wrong) for v in verdicts)),
        "lose over half": f"{sum(v.halves for v in verdicts) / count:.1%}",
        "trace, median": f"{statistics.median(seconds):.2f} s",
        "trace, longest": f"{max(seconds):.1f} s",
        "peer works": f"{len(works)} of {len(compared)}",
        "there at least as prunable": f"{sum(not v.behind for v in works)} of {len(works)}",
    }


def markdown(verdicts: list[Verdict]) -> str:
    """The whole report; what has to be said in words is written around it by hand."""
    return "\n".join(
        [
            "# Coverage: which models can be pruned, and how far (2026-11-22)",
            "",
            _machine(),
            "",
            "## Aims",
            "",
            *_aims(verdicts),
            "",
            "## What misses an aim",
            "",
            *_misses(verdicts),
            "",
            "## Families",
            "",
            *_families(verdicts),
            *(line for family in FAMILY_TITLES for line in _models(in_family(verdicts, family), family)),
            "",
        ]
    )


def _machine() -> str:
    libraries = ("torch", "torchvision", "timm", "transformers", "torch-pruning", "fvcore")
    versions = ", ".join(f"{name} {_version(name)}" for name in libraries)
    return f"{_processor()}, one core per model; Python {platform.python_version()}, {versions}."


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "-"


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _aims(verdicts: list[Verdict]) -> list[str]:
    vision = [v for v in verdicts if v.entry.family in ("torchvision", "segmentation", "detection")]
    others = [v for v in verdicts if v not in vision]
    works = [v for v in verdicts if v.peer_works]
    traced = [v.ours for v in verdicts if v.traced]
    seconds, cpu = ([ours[key] for ours in traced] or [math.nan] for key in ("seconds", "cpu_seconds"))
    rows = [
        ("traced without an exception", "100%", _share(verdicts, lambda v: v.traced)),
        ("wrong cuts", "0", str(sum(bool(v.wrong) for v in verdicts))),
        ("MACs that fvcore can not count", "0", str(sum("uncounted" in v.ours for v in verdicts))),
        (
            "torchvision models that can lose over half of their MACs",
            "95%",
            _share(vision, lambda v: v.halves),
        ),
        ("other models that can", "85%", _share(others, lambda v: v.halves)),
        (
            "at least as prunable as Torch-Pruning where that works",
            "100%",
            _share(works, lambda v: not v.behind),
        ),
        (
            "trace, median (of the core's own time)",
            "< 2 s",
            f"{statistics.median(seconds):.2f} s ({statistics.median(cpu):.2f} s)",
        ),
        ("trace, longest (of the core's own time)", "< 60 s", f"{max(seconds):.1f} s ({max(cpu):.1f} s)"),
    ]
    return ["| what | aim | measured |", "|---|---|---|", *(f"| {a} | {b} | {c} |" for a, b, c in rows)]


def _share(verdicts: list[Verdict], holds: Callable[[Verdict], bool]) -> str:
    number = sum(holds(v) for v in verdicts)
    return f"{number / len(verdicts):.1%} ({number} of {len(verdicts)})" if verdicts else "-"


def _misses(verdicts: list[Verdict]) -> list[str]:
    kinds: list[tuple[str, Callable[[Verdict], str | None]]] = [
        ("Not traced", lambda v: None if v.traced else v.error or "unknown"),
        ("Wrong", lambda v: "; ".join(v.wrong) or None),
        ("MACs that fvcore can not count", lambda v: v.ours.get("uncounted")),
        (
            "Can not lose over half of its MACs",
            lambda v: f"{v.ours['smallest']:.1%} stay" if v.traced and not v.halves else None,
        ),
        ("Torch-Pruning removes more", lambda v: "; ".join(v.behind) or None),
        (
            "Over 60 s",
            lambda v: f"{v.ours['seconds']:.0f} s" if v.traced and v.ours["seconds"] > 60 else None,
        ),
    ]
    lines = []
    for title, why in kinds:
        found = [f"  - {v.entry.label}: {reason}" for v in verdicts if (reason := why(v))]
        lines += [f"- {title}: {len(found) or 'none'}", *found]
    return lines


def _families(verdicts: list[Verdict]) -> list[str]:
    rows = {family: family_row(in_family(verdicts, family)) for family in FAMILY_TITLES}
    rows = {family: row for family, row in rows.items() if row}
    if not rows:
        return []
    names = list(next(iter(rows.values())))
    return [
        "| family | " + " | ".join(names) + " |",
        "|---" * (len(names) + 1) + "|",
        *(f"| {FAMILY_TITLES[family]} | " + " | ".join(row.values()) + " |" for family, row in rows.items()),
    ]


def _models(verdicts: list[Verdict], family: str) -> list[str]:
    if not verdicts:
        return []
    return [
        "",
        f"## {FAMILY_TITLES[family]}",
        "",
        "| model | input | trace | memory | groups | MACs prunable | parameters prunable | half widths "
        "| smallest | check | warnings | frozen | Torch-Pruning: half | smallest |",
        "|---" * 14 + "|",
        *(_model(verdict) for verdict in verdicts),
    ]


def _model(verdict: Verdict) -> str:
    ours, peer = verdict.ours, verdict.peer
    if verdict.traced:
        cells = [
            ours["size"],
            f"{ours['seconds']:.2f} s",
            f"{ours['peak_mb']:.0f} MB",
            str(ours["groups"]),
            f"{ours['macs_prunable']:.1%}",
            f"{ours['params_prunable']:.1%}",
            f"{ours['half']:.1%}",
            f"{ours['smallest']:.2%}",
            _check(verdict),
            str(len(ours["warnings"])),
            str(ours["num_frozen"]),
        ]
    else:
        cells = [ours.get("size", "-"), *["-"] * 7, "not traced", "-", "-"]
    if peer is None:
        cells += ["-", "-"]
    elif verdict.peer_works:
        cells += [f"{peer['half']:.1%}", f"{peer['smallest']:.2%}" if "smallest" in peer else "-"]
    else:
        cells += [verdict.peer_says.replace("|", "/")[:60], "-"]
    return f"| {verdict.entry.name} | " + " | ".join(cells) + " |"


def _check(verdict: Verdict) -> str:
    if verdict.wrong:
        return "**wrong**"
    arithmetic = verdict.ours["arithmetic"]
    return "equal" if arithmetic == "float64" else f"equal, {arithmetic}"
