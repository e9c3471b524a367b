"""Cutting a network to an architecture, and making the same network again from files."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from spaces.attention import HeadwiseAttention
from spaces.attributes import Attribute, read_attribute, write_attributes
from spaces.duplicate import duplicate
from spaces.modules import mend_sizes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from spaces.groups import Member
    from spaces.space import Space

SCHEMA = 1

#: Tensor name -> dimension -> indices that stay, ascending.
KeptSlots = dict[str, dict[int, "NDArray[np.int64]"]]


def cut(model: nn.Module, space: Space, kept: Mapping[str, Tensor]) -> nn.Module:
    """A copy of ``model`` with only the kept units.

    Args:
        model: The network that ``space`` was traced from; left as it is.
        space: Its space.
        kept: For each group, a sorted ``(k,)`` LongTensor of units that stay; groups left out stay whole.

    Returns:
        A new module of the same class, its tensors cut and its modules' sizes mended.

    Raises:
        ValueError: If a group is unknown, or its units are not distinct, ascending and in range.
    """
    return _copy_with(model, kept_slots(model, space, kept), kept_attributes(space, kept))


def masked(
    model: nn.Module, space: Space, kept: Mapping[str, Tensor], scratch: dict[str, Tensor] | None = None
) -> nn.Module:
    """A copy of full size in which every removed slot is zero, consumers' columns included.

    What a cut must equal; the slow reference of tests and of :func:`spaces.trace`'s verification.

    Args:
        model: Left as it is.
        space: Its space.
        kept: As in :func:`cut`.
        scratch: Memory of an earlier copy's parameters, which is written over; new memory of gigabytes costs
            more than filling it.
    """
    reused: dict[int, Tensor] = {}
    if scratch is not None:
        for name, parameter in model.named_parameters():
            if name not in scratch:
                scratch[name] = torch.empty_like(parameter, requires_grad=False)
            reused[id(parameter)] = nn.Parameter(
                scratch[name].copy_(parameter.detach()), requires_grad=parameter.requires_grad
            )
    twin = duplicate(model, reused)
    tensors = _tensors(twin)
    with torch.no_grad():
        for member, removed in _removed(space, kept):
            index = torch.from_numpy(removed).to(tensors[member.tensor].device)
            tensors[member.tensor].index_fill_(member.dim, index, 0)
    return twin


def kept_slots(model: nn.Module, space: Space, kept: Mapping[str, Tensor]) -> KeptSlots:
    """For each tensor that a cut shortens, the indices that stay in each dimension, ascending.

    Raises:
        ValueError: As :func:`cut`.
    """
    tensors = _tensors(model)
    stays: dict[str, dict[int, NDArray[np.bool_]]] = {}
    for member, removed in _removed(space, kept):
        dims = stays.setdefault(member.tensor, {})
        if member.dim not in dims:
            dims[member.dim] = np.ones(tensors[member.tensor].shape[member.dim], dtype=bool)
        dims[member.dim][removed] = False
    return {name: {dim: np.flatnonzero(mask) for dim, mask in dims.items()} for name, dims in stays.items()}


def kept_attributes(space: Space, kept: Mapping[str, Tensor]) -> dict[Attribute, int]:
    """Values of the integers that modules keep of widths, for these kept units."""
    widths = {g.name: len(kept[g.name]) if g.name in kept else g.width for g in space.groups}
    return {mend.attribute: mend.value(widths) for mend in space.mends}


def describe(
    space: Space, kept: Mapping[str, Tensor], criteria: Mapping[str, str], model: nn.Module
) -> dict[str, object]:
    """The JSON document ``architecture.json``: everything that :func:`rebuild` needs besides the dense code.

    Args:
        space: The space of the dense network.
        kept: Kept units per group, as in :func:`cut`.
        criteria: Criterion of each group that loses units; for the reader.
        model: The dense network.
    """
    sizes = {name: tuple(tensor.shape) for name, tensor in _tensors(model).items()}
    slots = kept_slots(model, space, kept)
    units = {g.name: kept[g.name].tolist() if g.name in kept else list(range(g.width)) for g in space.groups}
    return {
        "schema": SCHEMA,
        "widths": {name: len(some) for name, some in units.items()},
        "kept": units,
        "criteria": dict(criteria),
        "slots": {
            name: [
                {"dim": dim, "size": sizes[name][dim], "kept": index.tolist()} for dim, index in dims.items()
            ]
            for name, dims in slots.items()
        },
        "attributes": [
            {
                "module": attribute.module,
                "name": attribute.name,
                "index": attribute.index,
                "dense": read_attribute(model, attribute),
                "value": value,
            }
            for attribute, value in kept_attributes(space, kept).items()
        ],
    }


def write_architecture(
    folder: Path, document: Mapping[str, object], weights: Mapping[str, Tensor] | None
) -> None:
    """Write ``architecture.json`` and, when given, ``weights.safetensors``; each appears whole or not at all.

    Args:
        folder: Made when it does not exist.
        document: From :func:`describe`.
        weights: ``state_dict`` of the cut network. Tied tensors are stored once.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if weights is not None:
        scratch = folder / "weights.safetensors.partial"
        save_file(_without_aliases(weights), scratch)
        os.replace(scratch, folder / "weights.safetensors")
    scratch = folder / "architecture.json.partial"
    scratch.write_text(json.dumps(document) + "\n")
    os.replace(scratch, folder / "architecture.json")


def rebuild(dense: nn.Module | Callable[[], nn.Module], folder: str | Path) -> nn.Module:
    """The module that ``folder`` describes: plain PyTorch, with its weights when they are there.

    Args:
        dense: The dense network or a function that makes it. Its weights are taken only where the folder
            holds none. Left as it is.
        folder: Holds ``architecture.json`` and perhaps ``weights.safetensors``.

    Raises:
        ValueError: If the files do not fit the dense network or are malformed.
        FileNotFoundError: If there is no ``architecture.json``.
    """
    model = dense if isinstance(dense, nn.Module) else dense()
    folder = Path(folder)
    path = folder / "architecture.json"
    small = _copy_with(model, *_read_architecture(path, model))
    weights = folder / "weights.safetensors"
    if weights.exists():
        try:
            _load(small, load_file(weights), weights)
        except SafetensorError as error:
            raise ValueError(f"{weights}: not a safetensors file ({error}).") from error
    return small


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def _removed(space: Space, kept: Mapping[str, Tensor]) -> list[tuple[Member, NDArray[np.int64]]]:
    """The slots that go, per member; groups that stay whole are left out."""
    groups = {group.name: group for group in space.groups}
    removed = []
    for name, units in kept.items():
        if name not in groups:
            raise ValueError(f"`kept`: {name!r} is no group of this space.")
        group = groups[name]
        stays = units.detach().cpu().numpy()
        fits = len(stays) >= group.fewest and stays[0] >= 0 and stays[-1] < group.width
        if not fits or (np.diff(stays) <= 0).any():
            raise ValueError(
                f"`kept`: {name!r} needs {group.fewest} to {group.width} distinct ascending units, "
                f"got {stays.tolist()}."
            )
        if len(stays) < group.width:
            goes = np.delete(np.arange(group.width), stays)
            removed += [(member, member.slots[goes].ravel()) for member in group.members]
    return removed


def _copy_with(model: nn.Module, slots: KeptSlots, attributes: Mapping[Attribute, int]) -> nn.Module:
    """Deep copy in which the tensors are cut on the way, so that nothing is copied to be thrown away."""
    replaced: dict[int, Tensor] = {}
    for name, tensor in _tensors(model).items():
        small = tensor.detach()
        for dim, index in slots.get(name, {}).items():
            small = small.index_select(dim, torch.from_numpy(index).to(small.device))
        if not slots.get(name):
            small = small.clone()
        if isinstance(tensor, nn.Parameter):
            small = nn.Parameter(small, requires_grad=tensor.requires_grad)
        replaced[id(tensor)] = small
    twin = duplicate(model, replaced)
    # By identity: a tied parameter has the name of its first owner only.
    kept_rows = {
        id(tensor): slots[name][0] for name, tensor in _tensors(model).items() if 0 in slots.get(name, {})
    }
    owners = {name.rpartition(".")[0] for name in slots}
    owners |= {name.rpartition(".")[0] for name in owners}
    for name, module in twin.named_modules():
        if name in owners:
            mend_sizes(module, _kept_rows(model.get_submodule(name), kept_rows))
    for module in twin.modules():
        if isinstance(module, nn.TransformerEncoder):
            # Nested tensors would go through fused kernels, which know nothing of fewer heads.
            whole = not any(isinstance(some, HeadwiseAttention) for some in module.modules())
            module.use_nested_tensor = whole and module.use_nested_tensor
    write_attributes(twin, attributes)
    return twin


def _kept_rows(dense: nn.Module, kept_rows: Mapping[int, NDArray[np.int64]]) -> NDArray[np.int64] | None:
    """Indices that stay of the first dimension of a module's weight, which a parametrization may make."""
    weights = (parameter for parameter in dense.parameters() if parameter.dim() > 1)
    return next((kept_rows[id(weight)] for weight in weights if id(weight) in kept_rows), None)


def _read_architecture(path: Path, model: nn.Module) -> tuple[KeptSlots, dict[Attribute, int]]:
    """Decode and check at the edge: the file may come from anywhere."""
    try:
        document = json.loads(path.read_text())
        if document["schema"] != SCHEMA:
            raise ValueError(f"{path}: `schema` must be {SCHEMA}, got {document['schema']!r}.")
        attributes = [_read_attribute(entry, model, path) for entry in document.get("attributes", [])]
        return _read_slots(document["slots"], model, path), dict(attributes)
    except (KeyError, TypeError, AttributeError, OverflowError, json.JSONDecodeError) as error:
        raise ValueError(f"{path}: not an architecture of schema {SCHEMA} ({error!r}).") from error


def _read_slots(document: Mapping[str, Any], model: nn.Module, path: Path) -> KeptSlots:
    tensors = _tensors(model)
    slots: KeptSlots = {}
    for name, dims in document.items():
        for entry in dims:
            dim, size = int(entry["dim"]), int(entry["size"])
            index = np.array(entry["kept"], dtype=np.int64)
            if name not in tensors or not 0 <= dim < tensors[name].dim() or tensors[name].shape[dim] != size:
                raise ValueError(
                    f"{path}: the dense model has no {name!r} with {size} slots in dimension {dim}."
                )
            if (
                index.ndim != 1
                or not len(index)
                or index[0] < 0
                or index[-1] >= size
                or (np.diff(index) <= 0).any()
            ):
                raise ValueError(f"{path}: {name!r} must keep ascending slots below {size}.")
            slots.setdefault(name, {})[dim] = index
    return slots


def _read_attribute(entry: Mapping[str, Any], model: nn.Module, path: Path) -> tuple[Attribute, int]:
    """Only an integer that is there, with the value that it had, may become smaller."""
    attribute = Attribute(str(entry["module"]), str(entry["name"]), entry["index"])
    dense, value, index = entry["dense"], entry["value"], entry["index"]
    if index is not None and type(index) is not int:
        raise ValueError(f"{path}: {attribute.name!r} needs an integer as `index`, got {index!r}.")
    if type(dense) is not int or type(value) is not int or not 1 <= value <= dense:
        raise ValueError(
            f"{path}: {attribute.name!r} must go from {dense!r} to 1 to {dense!r}, got {value!r}."
        )
    try:
        now = read_attribute(model, attribute)
    except (AttributeError, IndexError, TypeError) as error:
        raise ValueError(f"{path}: the dense model has no {attribute.module}.{attribute.name}.") from error
    if type(now) is not int or now != dense:
        what = now if type(now) is int else f"a {type(now).__name__}"
        raise ValueError(f"{path}: {attribute.module}.{attribute.name} must be {dense}, is {what}.")
    return attribute, value


def _without_aliases(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Safetensors refuses tensors that share memory; a tied one is stored under its first name."""
    first: dict[tuple[int, tuple[int, ...]], str] = {}
    return {
        name: tensor.detach().cpu().contiguous()
        for name, tensor in weights.items()
        if tensor.numel() == 0 or first.setdefault((tensor.data_ptr(), tuple(tensor.shape)), name) == name
    }


def _load(model: nn.Module, weights: dict[str, Tensor], path: Path) -> None:
    own = model.state_dict()
    stored = _without_aliases(own)
    if set(weights) != set(stored):
        raise ValueError(
            f"{path}: tensors do not fit the model, first {sorted(set(weights) ^ set(stored))[:3]}."
        )
    for name, tensor in weights.items():
        if tensor.shape != own[name].shape:
            raise ValueError(
                f"{path}: {name!r} is {tuple(tensor.shape)}, the model needs {tuple(own[name].shape)}."
            )
    model.load_state_dict(weights, strict=False)
