"""A network as its tensors and a loader in plain PyTorch, which needs nothing of Espalier."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: Attributes of PyTorch's modules that hold its own state, not sizes.
_INSIDE = frozenset(vars(nn.Module()))

#: The file ``load.py``.
LOADER = '''\
"""Plain PyTorch: cuts the tensors of the network before pruning, and loads those of the pruned one."""
import json
from pathlib import Path

import torch
from safetensors.torch import load_file


def load(dense, folder=Path(__file__).parent):
    """`dense`, as your own code makes it, becomes the pruned network and is returned."""
    plan = json.loads(Path(folder, "architecture.json").read_text())
    tensors, small = {**dict(dense.named_parameters()), **dict(dense.named_buffers())}, {}
    for name, cuts in plan["slots"].items():
        cut = tensors[name].detach()
        for step in cuts:
            cut = cut.index_select(step["dim"], torch.tensor(step["kept"], device=cut.device))
        learns = isinstance(tensors[name], torch.nn.Parameter)
        small[id(tensors[name])] = torch.nn.Parameter(cut, tensors[name].requires_grad) if learns else cut
    for module in dense.modules():
        for name, tensor in [*module._parameters.items(), *module._buffers.items()]:
            setattr(module, name, small.get(id(tensor), tensor))
    for size in plan["attributes"]:
        module, name, value = dense.get_submodule(size["module"]), size["name"], size["value"]
        if size["index"] is not None:
            old = getattr(module, name)
            value = type(old)([value if i == size["index"] else one for i, one in enumerate(old)])
        setattr(module, name, value)
    unexpected = dense.load_state_dict(load_file(Path(folder, "weights.safetensors")), strict=False)[1]
    assert not unexpected, f"not the network that was pruned: it has no {unexpected}"
    return dense
'''


def plain_document(document: Mapping[str, Any], dense: nn.Module, small: nn.Module) -> dict[str, Any] | None:
    """``architecture.json`` with every integer of every module that a cut changes.

    :func:`spaces.rebuild` derives what PyTorch's own modules know of their widths; a loader of a few lines
    can not, so the document tells it.

    Args:
        document: What the run wrote.
        dense: The network before it was cut.
        small: The network that ``document`` describes.

    Returns:
        ``None`` where integers are not all that differs, as where attention became one with fewer heads.
    """
    sizes = {(one["module"], one["name"], one["index"]): one for one in document.get("attributes", [])}
    before = dict(dense.named_modules())
    for name, module in small.named_modules():
        whole = before.get(name)
        if whole is None or type(module) is not type(whole):
            return None
        for attribute, old, new in _different(whole, module):
            entries = list(_integers(old, new))
            if not entries:
                return None
            for index, was, value in entries:
                sizes[name, attribute, index] = {
                    "module": name,
                    "name": attribute,
                    "index": index,
                    "dense": was,
                    "value": value,
                }
    return {**document, "attributes": list(sizes.values())}


def _different(dense: nn.Module, small: nn.Module) -> Iterator[tuple[str, Any, Any]]:
    """Attributes that differ and are neither tensors nor modules nor anything that can not be compared."""
    for name, new in vars(small).items():
        old = vars(dense).get(name)
        if name in _INSIDE or name == "_flat_weights" or isinstance(new, Tensor | nn.Module):
            continue
        if isinstance(new, bool | int | float | str | tuple | list) and not _equal(old, new):
            yield name, old, new


def _equal(old: Any, new: Any) -> bool:
    if isinstance(new, tuple | list):
        same = isinstance(old, tuple | list) and len(old) == len(new)
        return same and all(_equal(a, b) for a, b in zip(old, new, strict=True))
    return not isinstance(new, bool | int | float | str) or bool(old == new)


def _integers(old: Any, new: Any) -> Iterator[tuple[int | None, int, int]]:
    """Index, value before and value now of the integers that differ; nothing where something else does."""
    if type(old) is int and type(new) is int:
        yield None, old, new
    elif type(old) is type(new) and isinstance(new, tuple | list) and len(old) == len(new):
        pairs = [(i, a, b) for i, (a, b) in enumerate(zip(old, new, strict=True)) if a != b]
        if all(type(a) is int and type(b) is int for _, a, b in pairs):
            yield from pairs
