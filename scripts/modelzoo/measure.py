"""What Espalier makes of one model: traced, timed, and checked again with other numbers than the tracer's.

Runs in a process of its own and sends what it finds as it finds it, so that a model which is stopped half-way
leaves what was known by then.
"""

from __future__ import annotations

import contextlib
import resource
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from evaluators.flops import count_macs
from evaluators.scoring import call
from modelzoo.compare import Checked, structure
from spaces import Space, cut, trace
from spaces.blame import first_line
from spaces.duplicate import duplicate
from spaces.trial_cuts import random_kept

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from torch import Tensor

    from modelzoo.entry import Entry, Made

    Send = Callable[[dict[str, Any]], None]

#: Not the seed that the tracer verifies with.
_SEED = 20_261_122

#: Frozen layers that a record keeps.
_NUM_FROZEN = 100


def measure(entry: Entry, send: Send) -> None:
    """Send the record of one model, piece by piece; ``stage`` says what is being done."""
    send({"stage": "make"})
    torch.manual_seed(0)
    made = entry.make()
    send({"size": made.size, "params_dense": sum(p.numel() for p in made.model.parameters())})
    send({"stage": "run"})
    with torch.no_grad():
        call(made.model, made.inputs)

    send({"stage": "trace"})
    before = _reset_peak()
    start, cpu = time.perf_counter(), time.process_time()
    space = trace(made.model, made.inputs)
    send({"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - cpu})
    send({"peak_mb": max(0.0, _peak() - before)})
    send(_extent(space))

    wrong: list[str] = []
    for stage, check in (("check", _check_values), ("count", _check_macs), ("whole", _check_whole)):
        send({"stage": stage})
        found = check(made, space, wrong)
        send(found | {"wrong": wrong})
    send({"stage": "done"})


def _extent(space: Space) -> dict[str, Any]:
    """How much can go, in shares of the dense network."""
    full = np.array([group.width for group in space.groups], dtype=np.int64)
    nothing_and_all = np.stack([np.zeros_like(full), full])
    fixed_macs, dense_macs = space.macs(nothing_and_all).tolist()
    fixed_params, dense_params = space.params(nothing_and_all).tolist()
    return {
        "groups": len(space.groups),
        "inexact": sum(not group.exact for group in space.groups),
        "units": int(full.sum()),
        "macs_dense": dense_macs,
        "macs_prunable": 1 - fixed_macs / dense_macs if dense_macs else 0.0,
        "params_prunable": 1 - fixed_params / dense_params if dense_params else 0.0,
        "half": space.macs(space.uniform(0.5)) / dense_macs if dense_macs else 1.0,
        "smallest": space.macs(space.smallest) / dense_macs if dense_macs else 1.0,
        "warnings": list(space.warnings),
        "frozen": [asdict(one) for one in space.frozen[:_NUM_FROZEN]],
        "num_frozen": len(space.frozen),
        "num_mends": len(space.mends),
    }


def _check_values(made: Made, space: Space, wrong: list[str]) -> dict[str, Any]:
    """Random cuts against the network that they stand for; the smallest cut in its outputs' shapes."""
    generator = torch.Generator().manual_seed(_SEED)
    checked = Checked.of(made, generator)
    kept = random_kept(space.groups, generator)
    exact = {group.name: kept[group.name] for group in space.groups if group.exact}
    found: dict[str, Any] = {"arithmetic": checked.arithmetic}
    cuts = {"exact groups": exact} | ({"all groups": kept} if len(exact) < len(kept) else {})
    for what, some in cuts.items():
        with _noting(wrong, f"a random cut of {what}"):
            difference = checked.difference(space, some)
            found[f"difference, {what}"] = difference
            if not difference <= checked.tolerance:  # also where it is no number
                wrong.append(f"a random cut of {what} differs from the masked network by {difference:.1e}")
    with _noting(wrong, "the smallest cut"):
        if checked.structure(space, _last_units(space, space.smallest.widths)) != checked.structure(
            space, {}
        ):
            wrong.append("the smallest cut changes the outputs' structure")
    return found


def _check_macs(made: Made, space: Space, wrong: list[str]) -> dict[str, Any]:
    """The closed form against fvcore, on the dense network and on two cuts."""
    generator = torch.Generator().manual_seed(_SEED + 1)
    cuts = {
        "the dense network": _last_units(space, space.dense.widths),
        "a random cut": random_kept(space.groups, generator),
        "half widths": _last_units(space, space.uniform(0.5).widths),
    }
    for what, kept in cuts.items():
        widths = np.array([[len(kept[group.name]) for group in space.groups]], dtype=np.int64)
        expected = int(space.macs(widths)[0])
        try:
            counted = count_macs(cut(made.model, space, kept), made.inputs)
        except Exception as error:  # fvcore runs a foreign forward, which may raise anything
            return {"uncounted": f"{what}: {first_line(error)}"}
        if counted != expected:
            wrong.append(f"MACs of {what}: {expected:,} in closed form, {counted:,} counted by fvcore")
    return {}


def _check_whole(made: Made, space: Space, wrong: list[str]) -> dict[str, Any]:
    """The traced part, cut and put back into what it belongs to, leaves the kinds of outputs as they were."""
    if made.whole is None:
        return {}
    with _noting(wrong, "the whole model"), torch.no_grad():
        dense = made.whole.model(*made.whole.inputs)
        twin = duplicate(made.whole.model)
        small = cut(made.model, space, _last_units(space, space.uniform(0.5).widths))
        twin.set_submodule(made.whole.path, small)
        if structure(twin(*made.whole.inputs), free=(0,)) != structure(dense, free=(0,)):
            wrong.append("the whole model changes its outputs' structure")
    return {}


def _last_units(space: Space, widths: Mapping[str, int]) -> dict[str, Tensor]:
    return {group.name: torch.arange(group.width - widths[group.name], group.width) for group in space.groups}


@contextlib.contextmanager
def _noting(wrong: list[str], what: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # a foreign forward may raise anything
        wrong.append(f"{what} does not run: {first_line(error)}")


def _reset_peak() -> float:
    """Make the process forget its peak; what it holds now, in MB."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / 1e6


def _peak() -> float:
    """Most memory held since then, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
