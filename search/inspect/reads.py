"""One forward pass of a copy: in which order tensors are read, and what each costs."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from spaces.duplicate import duplicate
from spaces.trace import as_call, batch_of_one, on_meta_device

if TYPE_CHECKING:
    from collections.abc import Mapping

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Reads:
    """What a forward pass did with each parameter.

    Attributes:
        order: Parameter names in the order of their first use.
        macs: Multiply-adds of the operators that read each parameter.
        others: Multiply-adds of products of activations, such as those of attention.
    """

    order: dict[str, int] = field(default_factory=dict)
    macs: dict[str, int] = field(default_factory=dict)
    others: int = 0


def read_order(model: nn.Module, example_inputs: Any) -> Reads:
    """Run a copy in eval mode, on the meta device where that works; nothing is known where neither does.

    Args:
        model: Left as it is.
        example_inputs: As for :func:`spaces.trace`; a batch is cut to its first sample.
    """
    inputs = batch_of_one(*as_call(example_inputs))
    for on_meta in (True, False):
        try:
            return _watched(model, inputs, on_meta=on_meta)
        except Exception as error:  # a foreign forward may raise anything
            logger.info("Not watched %s: %s", "on the meta device" if on_meta else "for real", error)
    return Reads()


def _watched(model: nn.Module, inputs: tuple[tuple[Any, ...], dict[str, Any]], *, on_meta: bool) -> Reads:
    copy = on_meta_device(model) if on_meta else duplicate(model)
    args, kwargs = pytree.tree_map_only(Tensor, lambda x: x.to("meta"), inputs) if on_meta else inputs
    watch = _Watch(dict(copy.named_parameters()))
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.random.fork_rng(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH), watch:
            copy.eval()(*args, **kwargs)
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    return watch.reads


class _Watch(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Knows parameters by their storage, which views share, and whatever is computed from them alone."""

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.reads = Reads()
        self._names = {_storage(tensor): name for name, tensor in parameters.items()}
        self._sizes = {name: tensor.numel() for name, tensor in parameters.items()}
        # A storage that was freed could come back as another tensor's.
        self._kept_alive = list(parameters.values())

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        known = [self._names[key] for key in map(_storage, tensors) if key in self._names]
        for name in known:
            self.reads.order.setdefault(name, len(self.reads.order))
        if known and len(known) == len(tensors):
            for output in pytree.tree_leaves(result):
                if isinstance(output, Tensor):
                    self._names.setdefault(_storage(output), known[0])
                    self._kept_alive.append(output)
        if func.overloadpacket in flop_registry:
            operations = flop_registry[func.overloadpacket](*args, **(kwargs or {}), out_val=result)
            self._count(operations // 2, known)
        return result

    def _count(self, macs: int, known: list[str]) -> None:
        """The larger of weight and bias is the weight."""
        if known:
            weight = max(known, key=lambda name: self._sizes[name])
            self.reads.macs[weight] = self.reads.macs.get(weight, 0) + macs
        else:
            self.reads.others += macs


def _storage(tensor: Tensor) -> int:
    address: int = tensor.untyped_storage()._cdata
    return address
