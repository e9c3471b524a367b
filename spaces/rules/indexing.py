"""Reading and writing at places that tensors name: an indexed dimension stays, the others go along."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from spaces.rules.call import Call, rule

if TYPE_CHECKING:
    from collections.abc import Sequence

    from spaces.slots import Labels, Slots, TensorLabels

aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class _Region:
    """The shape of ``source[indices]``, dimension by dimension.

    Attributes:
        origin: For each dimension of the region, the dimension of the source that it is, or ``None`` where
            the indices make it.
        indexed: Dimensions of the source that the indices pick from.
        indices: The tensors among the indices.
    """

    origin: tuple[int | None, ...]
    indexed: tuple[int, ...]
    indices: tuple[Tensor, ...]

    @classmethod
    def of(cls, rank: int, indices: Sequence[Tensor | None]) -> _Region:
        """What indices pick from a source of ``rank`` dimensions.

        A mask picks from as many dimensions as it has, and is one index. Indices that are not next to each
        other put what they make in front.
        """
        indexed: list[int] = []
        next_dim = 0
        for index in indices:
            width = index.dim() if index is not None and _is_mask(index) else 1
            if index is not None:
                indexed += range(next_dim, next_dim + width)
            next_dim += width
        present = tuple(index for index in indices if index is not None)
        made = (None,) * max(1 if _is_mask(index) else index.dim() for index in present)
        adjacent = indexed == list(range(indexed[0], indexed[-1] + 1))
        front = indexed[0] if adjacent else 0
        kept = [dim for dim in range(rank) if dim not in indexed]
        return cls((*kept[:front], *made, *kept[front:]), tuple(indexed), present)

    def labels_made(self, slots: Slots, shape: Sequence[int]) -> list[Labels]:
        """Labels that the indices bring: they are stretched to each other as in element-wise operators."""
        makers = [position for position, dim in enumerate(self.origin) if dim is None]
        result: list[Labels] = []
        for place, position in enumerate(makers):
            from_end = len(makers) - place
            met: list[Labels] = []
            for index in self.indices:
                if _is_mask(index):
                    met += [None] if from_end == 1 else []
                elif index.dim() >= from_end and index.shape[index.dim() - from_end] == shape[position]:
                    met.append(slots.of(index)[index.dim() - from_end])
            result.append(slots.meet(met))
        return result

    def freeze_places(self, slots: Slots, source: TensorLabels) -> None:
        """The indices say which slots, so none may go; neither may those that a mask covers."""
        slots.freeze(*(source[dim] for dim in self.indexed), reason="indexed")
        for index in self.indices:
            if _is_mask(index):
                slots.freeze(*slots.of(index), reason="a mask says which slots are read")


def _is_mask(index: Tensor) -> bool:
    return index.dtype in (torch.bool, torch.uint8)


@rule(aten.index, aten._unsafe_index)
def indexing(slots: Slots, call: Call) -> list[TensorLabels]:
    """Indexed dimensions stay and are replaced by those of the indices; the others keep their labels."""
    source, (out,) = slots.of(call["self"]), call.outputs
    region = _Region.of(len(source), call["indices"])
    made = iter(region.labels_made(slots, out.shape))
    region.freeze_places(slots, source)
    return [tuple(next(made) if dim is None else source[dim] for dim in region.origin)]


@rule(aten.index_put, aten._unsafe_index_put, aten._index_put_impl_)
def index_writing(slots: Slots, call: Call) -> list[TensorLabels]:
    """Values go along with the dimensions that are not indexed."""
    target, values = call["self"], call["values"]
    labels = list(slots.of(target))
    region = _Region.of(len(labels), call["indices"])
    if values.numel() == 1 and len(region.indices) == 1 and _is_mask(region.indices[0]):
        # One number under a mask: element by element.
        for masked, some in zip(region.indexed, slots.of(region.indices[0]), strict=True):
            labels[masked] = slots.meet([labels[masked], some])
        return [tuple(labels)]
    region.freeze_places(slots, tuple(labels))
    for index in region.indices:  # without one of its places something else would be written
        slots.freeze(*slots.of(index), reason="indexed")
    written = zip(reversed(region.origin), reversed(slots.of(values)), reversed(values.shape), strict=False)
    for dim, theirs, size in written:
        if dim is None:
            slots.freeze(theirs, reason="indexed")
        elif size == target.shape[dim]:
            labels[dim] = slots.meet([labels[dim], theirs])
    return [tuple(labels)]


@rule(aten.index_select)
def index_selection(slots: Slots, call: Call) -> list[TensorLabels]:
    """The dimension that is selected from stays."""
    labels = list(slots.of(call["self"]))
    dim = call["dim"] % len(labels)
    slots.freeze(labels[dim], reason="indexed")
    labels[dim] = next(iter(slots.of(call["index"])), None)
    return [tuple(labels)]


@rule(aten.gather)
def gathering(slots: Slots, call: Call) -> list[TensorLabels]:
    """Source and index go together wherever they are of one size; only a part of a longer source is read."""
    source, index = call["self"], call["index"]
    along = call["dim"] % max(1, source.dim())
    result: list[Labels] = []
    for dim, (mine, theirs) in enumerate(zip(slots.of(source), slots.of(index), strict=True)):
        if dim == along:
            slots.freeze(mine, reason="indexed")
            result.append(theirs)
        elif source.shape[dim] == index.shape[dim]:
            result.append(slots.meet([mine, theirs]))
        else:
            slots.freeze(mine, theirs, reason="a part is read at fixed places")
            result.append(None)
    return [tuple(result)]


@rule(aten.scatter, aten.scatter_add, aten.scatter_reduce)
def scattering(slots: Slots, call: Call) -> list[TensorLabels]:
    """Target, index and source go together, but for the dimension that is written to and for mere parts."""
    names = [name for name in ("self", "index", "src") if isinstance(call.arguments.get(name), Tensor)]
    tensors = [call[name] for name in names if call[name].dim()]
    if not tensors:
        return [()]
    return [_written(slots, call["dim"], tensors)]


@rule(aten.index_add, aten.index_copy, aten.index_reduce)
def index_updating(slots: Slots, call: Call) -> list[TensorLabels]:
    """Target and source go together, but for the dimension that is written to."""
    slots.freeze(*slots.of(call["index"]))
    tensors = [call[name] for name in ("self", "source") if call[name].dim()]
    return [_written(slots, call["dim"], tensors)]


@rule(aten.index_fill)
def index_filling(slots: Slots, call: Call) -> list[TensorLabels]:
    """Slots at fixed places get another value, so the dimension stays."""
    return [_written(slots, call["dim"], [call["self"]])]


def _written(slots: Slots, along: int, tensors: Sequence[Tensor]) -> TensorLabels:
    """Labels of the first tensor once the others were written into it."""
    target = tensors[0]
    result: list[Labels] = []
    for dim, size in enumerate(target.shape):
        met = [slots.of(tensor)[dim] for tensor in tensors]
        if dim == along % target.dim() or any(tensor.shape[dim] != size for tensor in tensors):
            slots.freeze(*met, reason="indexed")
            result.append(met[0])
        else:
            result.append(slots.meet(met))
    return tuple(result)


@rule(aten.select_scatter)
def select_writing(slots: Slots, call: Call) -> list[TensorLabels]:
    """A slice is written at a fixed place."""
    labels, source = list(slots.of(call["self"])), list(slots.of(call["src"]))
    dim = call["dim"] % len(labels)
    slots.freeze(labels[dim])
    source.insert(dim, None)
    return [
        tuple(
            a if d == dim else slots.meet([a, b]) for d, (a, b) in enumerate(zip(labels, source, strict=True))
        )
    ]


@rule(aten.slice_scatter)
def slice_writing(slots: Slots, call: Call) -> list[TensorLabels]:
    """A part is written at fixed places, unless it is the whole."""
    target, source = call["self"], call["src"]
    dim = call["dim"] % target.dim()
    if source.shape[dim] == target.shape[dim]:
        met = zip(slots.of(target), slots.of(source), strict=True)
        return [tuple(slots.meet(pair) for pair in met)]
    return [_written(slots, dim, [target, source])]


@rule(aten.take)
def taking(slots: Slots, call: Call) -> list[TensorLabels]:
    """Places are counted over all dimensions, so all stay."""
    slots.freeze(*slots.of(call["self"]), reason="indexed")
    return [slots.of(call["index"])]


@rule(aten.masked_scatter)
def masked_writing(slots: Slots, call: Call) -> list[TensorLabels]:
    """Source slots are used up in order; only where a mask is stretched do whole rows of the source go in."""
    target, mask, source = call["self"], call["mask"], call["source"]
    labels, theirs = list(slots.of(target)), list(slots.of(source))
    num_whole = 0
    while (
        num_whole < min(target.dim(), mask.dim(), source.dim())
        and target.shape[-1 - num_whole] == source.shape[-1 - num_whole]
        and mask.shape[-1 - num_whole] in (1, target.shape[-1 - num_whole])
        and (mask.stride(-1 - num_whole) == 0 or mask.shape[-1 - num_whole] == 1)
    ):
        num_whole += 1
        labels[-num_whole] = slots.meet([labels[-num_whole], theirs[-num_whole]])
    rest = (some[: len(some) - num_whole] for some in (labels, theirs, list(slots.of(mask))))
    slots.freeze(*(some for part in rest for some in part), reason="a mask says which slots are written")
    return [tuple(labels)]


@rule(
    aten._local_scalar_dense,
    aten._unique2,
    aten.bincount,
    aten.equal,
    aten.histc,
    aten.is_nonzero,
    aten.masked_select,
    aten.multinomial,
    aten.nonzero,
    aten.nonzero_static,
    aten.repeat_interleave,
    aten.unique_consecutive,
    aten.unique_dim,
)
def reading(slots: Slots, call: Call) -> list[TensorLabels]:
    """What comes out depends on every number that goes in."""
    for tensor in call.inputs:
        slots.freeze(*slots.of(tensor), reason="its numbers decide what is computed")
    return [(None,) * output.dim() for output in call.outputs]


@rule(aten.bucketize)
def bucketing(slots: Slots, call: Call) -> list[TensorLabels]:
    """Each slot alone is compared with all boundaries."""
    slots.freeze(*slots.of(call["boundaries"]))
    return [slots.of(call["self"]) if isinstance(call["self"], Tensor) else ()]


@rule(aten.embedding)
def embedding(slots: Slots, call: Call) -> list[TensorLabels]:
    """Rows are looked up and stay; columns are the units that the layer makes."""
    rows, columns = slots.of(call["weight"])
    slots.give_role(columns, "output")
    slots.freeze(rows, reason="rows of an embedding")
    return [(*slots.of(call["indices"]), columns)]


@rule(aten._embedding_bag, aten._embedding_bag_forward_only)
def embedding_bag(slots: Slots, call: Call) -> list[TensorLabels]:
    """Rows are looked up and added, averaged or compared, each column alone."""
    rows, columns = slots.of(call["weight"])
    slots.give_role(columns, "output")
    slots.freeze(rows, reason="rows of an embedding")
    for tensor in call.inputs[1:]:
        slots.freeze(*slots.of(tensor))
    num_columns = call.outputs[0].shape[1]
    return [
        (None, columns) if output.dim() == 2 and output.shape[1] == num_columns else (None,) * output.dim()
        for output in call.outputs
    ]


@rule(aten.embedding_renorm)
def renormalised_embedding(slots: Slots, call: Call) -> list[TensorLabels]:
    """Rows are rescaled by their norms, which a removed column would change."""
    slots.freeze(*slots.of(call["self"]), reason="rows are rescaled by their norms")
    return [slots.of(call["self"])]
