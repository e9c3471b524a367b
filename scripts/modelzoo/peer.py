"""What Torch-Pruning makes of one model with its default settings.

As in its README: magnitude importance, the final classifier is not pruned (of a feature pyramid, the layers
that make its outputs), nothing else is said about the model.
"""

from __future__ import annotations

import contextlib
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
import torch_pruning as tp  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evaluators.flops import count_macs
from evaluators.scoring import call

if TYPE_CHECKING:
    from collections.abc import Callable

    from modelzoo.entry import Entry, Made

    Send = Callable[[dict[str, Any]], None]

#: Tried for the smallest network after a half; the one that leaves the fewest MACs counts. A layer of which a
#: ratio would leave no channel stays whole, so that the largest ratio need not be the best.
_RATIOS = (0.99, 0.98, 0.95, 0.9, 0.875, 0.8, 0.75, 0.7)

#: No further ratio is tried after so many seconds.
_SECONDS = 20.0


def compare(entry: Entry, send: Send) -> None:
    """Send the peer's record of one model, piece by piece; ``stage`` says what is being done."""
    send({"stage": "make"})
    torch.manual_seed(0)
    made = entry.make()
    count = _counter(made)
    dense = count(made)
    shapes = _shapes(made)
    send({"stage": "half"})
    start = time.perf_counter()
    _prune(made, 0.5)
    send({"seconds": time.perf_counter() - start})
    kept = _shapes(made) == shapes
    send({"keeps_outputs": kept, "half": count(made) / dense})
    smallest = 1.0
    end = time.perf_counter() + _SECONDS
    for ratio in _RATIOS if kept else ():
        if time.perf_counter() > end:
            break
        send({"stage": f"ratio {ratio}"})
        with contextlib.suppress(Exception):  # only what works counts
            again = entry.make()
            _prune(again, ratio)
            share = count(again) / dense
            if _shapes(again) == shapes and share < smallest:
                smallest = share
                send({"smallest": share, "smallest_ratio": ratio})
    send({"stage": "done"})


def _counter(made: Made) -> Callable[[Made], float]:
    """Fvcore's count as for our networks; where fvcore does not know an operator, the peer's own."""
    try:
        count_macs(made.model, made.inputs)
    except Exception:  # fvcore runs a foreign forward, which may raise anything
        return lambda one: float(tp.utils.count_ops_and_params(one.model, one.inputs)[0])
    return lambda one: float(count_macs(one.model, one.inputs))


def _prune(made: Made, ratio: float) -> None:
    pruner = tp.pruner.BasePruner(
        made.model,
        made.inputs,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[
            module for name, module in made.model.named_modules() if _is_last(made, name, module)
        ],
        # The defaults of these are shared by all calls, so that one model's layers would be met in the next.
        in_channel_groups={},
        out_channel_groups={},
        num_heads={},
    )
    pruner.step()


def _is_last(made: Made, name: str, module: nn.Module) -> bool:
    """A layer that makes the outputs; the README's example looks for linear ones, convolutions count, too."""
    if isinstance(module, nn.Linear):
        width = module.out_features
    elif isinstance(module, nn.Conv2d):
        width = module.out_channels
    else:
        return False
    return width == made.classes or any(fnmatchcase(name, pattern) for pattern in made.last)


def _shapes(made: Made) -> list[Any]:
    with torch.no_grad():
        outputs = pytree.tree_leaves(call(made.model, made.inputs))
    return [tuple(x.shape) if isinstance(x, Tensor) else type(x) for x in outputs]
