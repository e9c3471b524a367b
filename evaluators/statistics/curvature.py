"""Second derivatives of the loss by the units' gates."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from evaluators.scoring import call, eval_mode
from evaluators.statistics.sites import LINEAR_LAYERS, channels_last, input_channels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from evaluators.precision import Precision
    from evaluators.task import Batch, Task
    from spaces import Space
    from spaces.groups import ChannelGroup

logger = logging.getLogger(__name__)

#: Outputs up to which the loss's Hessian of a sample is computed whole; beyond it is sketched with so many
#: random vectors. A trained classifier wavers between a few classes: it has few directions that matter.
SKETCH = 32
#: Eigenvalues below this share of the largest are rounding errors of float32.
_RELATIVE_ZERO = 1e-6

#: Name of the layer and ``(width, n)`` input channels of each unit.
_Reader = tuple[str, Tensor]


def curvature(
    task: Task,
    space: Space,
    batches: Iterable[Batch],
    precision: Precision,
    seed: int,
    num_probes: int = 8,
) -> dict[str, Tensor]:
    r"""Second derivative of the mean loss by every unit's gate, for all groups at once.

    A gate is a factor on all that is read of a unit. For a network of linear layers and ReLUs the outputs
    are piecewise linear in a single gate, so the second derivative is that of the loss alone,

    .. math:: \frac{\partial^2 L}{\partial z_u^2}
              = \mathrm{E}_n \Big[ \frac{\partial f_n}{\partial z_u}^\top
                \frac{\partial^2 L_n}{\partial f_n^2} \frac{\partial f_n}{\partial z_u} \Big]
              = \mathrm{E}_n \sum_i \pm \Big( \frac{\partial\, e_{ni}^\top f_n}{\partial z_u} \Big)^2,

    with scaled eigenvectors :math:`e_{ni}` of the loss's Hessian by the outputs :math:`f_n` of a sample: one
    backward pass for each ``i`` serves all units. With other activations it is the Gauss-Newton part, as in
    Optimal Brain Damage. Random probes of the whole Hessian, which would need no such assumption, measure
    the interaction with every other gate as noise, which in a network of hundreds of units hides the
    diagonal. In eval mode and fp32.

    Args:
        task: ``task.model`` keeps its weights, modes and ``requires_grad``; it is moved to the device. Its
            loss is a mean over samples, and its outputs have the samples in front.
        space: Its groups; those that something other than a convolution or linear layer reads are left out.
        batches: On the precision's device.
        precision: Device.
        seed: Of the sketch, where there are more than :data:`SKETCH` outputs.
        num_probes: Backward passes per batch: eigenvectors, the largest first. As many as there are
            outputs leave nothing out.

    Returns:
        ``(width,)`` float64 by group name, on the CPU; empty, with a warning in the log, if the loss has
        no second derivative.

    References:
        LeCun et al., Optimal Brain Damage, NeurIPS 1989; Schraudolph, Fast Curvature Matrix-Vector
        Products for Second-Order Gradient Descent, 2002, for the factored loss.
    """
    model = precision.exact.place(task.model)
    readers = _readers(model, space.groups)
    total = {g.name: torch.zeros(g.width, dtype=torch.float64) for g in space.groups if g.name in readers}
    samples = 0
    with eval_mode(model), differentiable(model.parameters()), _reading(model, readers) as read:
        for inputs, targets in batches:
            read.clear()
            outputs = call(model, inputs)
            try:
                signs, vectors = _eigenvectors(task, outputs, targets, num_probes, seed)
            except RuntimeError as error:
                logger.warning("The loss of task %s has no second derivatives: %s", task.name, error)
                return {}
            ran = {layer for layer, _ in read}
            for name in [name for name, found in readers.items() if not ran.issuperset(dict(found))]:
                # Its weights were used behind the back of its `forward`, as attention does.
                del readers[name], total[name]
            for sign, vector in zip(signs, vectors, strict=True):
                slopes = _gate_slopes(model, read, _floats(outputs), vector)
                for name, found in readers.items():
                    parts = [slopes[layer][:, slots].sum(dim=2) for layer, slots in found]
                    squares = torch.stack(parts).sum(dim=0).square()
                    total[name] += (sign[:, None] * squares).sum(dim=0).cpu()
            samples += len(targets)
    return {name: values / max(1, samples) for name, values in total.items()}


def _eigenvectors(
    task: Task, outputs: Any, targets: Tensor, count: int, seed: int
) -> tuple[list[Tensor], list[list[Tensor]]]:
    """The loss's Hessian by the outputs, factored for each sample by itself.

    Returns:
        ``count`` (or fewer) times: ``(n,)`` float64 signs, and vectors in the shapes of the outputs, such
        that the Hessian is the sum of sign times outer product. The largest come first.
    """
    leaves, structure = pytree.tree_flatten(outputs)
    places = [i for i, leaf in enumerate(leaves) if _is_float(leaf)]
    free = [leaves[i].detach().requires_grad_() for i in places]
    for place, leaf in zip(places, free, strict=True):
        leaves[place] = leaf
    # Not the mean: a sample's own Hessian.
    loss = task.compute_loss(pytree.tree_unflatten(leaves, structure), targets) * len(targets)
    slopes = torch.autograd.grad(loss, free, create_graph=True, materialize_grads=True)
    slope = _rows(slopes)
    if not slope.requires_grad:
        return [], []
    sketch = _sketch(slope.shape[1], max(SKETCH, count), seed).to(slope)
    images = [
        torch.autograd.grad((slope @ vector).sum(), free, retain_graph=True, materialize_grads=True)
        for vector in sketch.T
    ]
    products = torch.stack([_rows(image) for image in images], dim=2).double()
    # Nystrom: H is about (H S) (S' H S)^-1 (H S)'; exactly where S has full rank.
    values, rotation = torch.linalg.eigh(sketch.T.double() @ products)
    order = values.abs().argsort(dim=1, descending=True)[:, :count]
    values = values.gather(1, order)
    rotation = rotation.gather(2, order[:, None].expand(-1, rotation.shape[1], -1))
    small = values.abs() <= _RELATIVE_ZERO * values.abs().amax(dim=1, keepdim=True)
    scale = values.abs().rsqrt().masked_fill(small, 0)
    vectors = (products @ rotation * scale[:, None]).to(slope.dtype)
    sizes = [leaf[0].numel() for leaf in free]
    found = [
        [part.reshape(leaf.shape) for part, leaf in zip(torch.split(vector, sizes, 1), free, strict=True)]
        for vector in vectors.unbind(dim=2)
    ]
    return list(values.sign().unbind(dim=1)), found


def _rows(parts: Sequence[Tensor]) -> Tensor:
    """``(n, numbers)``: what each sample has, also where that is one number of shape ``(n,)``."""
    return torch.cat([part.reshape(len(part), -1) for part in parts], dim=1)


def _sketch(size: int, count: int, seed: int) -> Tensor:
    """``(size, min(size, count))`` float64 random directions; the unit vectors where they fit."""
    if size <= count:
        return torch.eye(size, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    columns: Tensor = torch.randn(size, count, generator=generator, dtype=torch.float64)
    return columns.div_(columns.norm(dim=0))


def _gate_slopes(
    model: nn.Module, read: Sequence[tuple[str, Tensor]], outputs: Sequence[Tensor], vector: Sequence[Tensor]
) -> dict[str, Tensor]:
    """By layer: ``(n, channels)`` float64 derivative of ``vector . outputs`` by a factor on each channel."""
    gradients = torch.autograd.grad(
        outputs, [x for _, x in read], vector, retain_graph=True, materialize_grads=True
    )
    found: dict[str, Tensor] = {}
    for (name, values), gradient in zip(read, gradients, strict=True):
        products = channels_last(model.get_submodule(name), values.detach() * gradient).double()
        slope = products.flatten(1, -2).sum(dim=1) if products.dim() > 2 else products
        found[name] = found[name] + slope if name in found else slope
    return found


def _readers(model: nn.Module, groups: Sequence[ChannelGroup]) -> dict[str, list[_Reader]]:
    """By group, if layers whose inputs can be seen are all that reads it."""
    modules = dict(model.named_modules())
    found = {}
    for group in groups:
        members = [member for member in group.members if member.role == "input"]
        layers = [member.tensor.removesuffix(".weight") for member in members]
        if members and all(isinstance(modules.get(layer), LINEAR_LAYERS) for layer in layers):
            slots = [
                input_channels(modules[layer], torch.from_numpy(member.slots.copy()))
                for layer, member in zip(layers, members, strict=True)
            ]
            found[group.name] = list(zip(layers, slots, strict=True))
    return found


@contextmanager
def _reading(
    model: nn.Module, readers: Mapping[str, Sequence[_Reader]]
) -> Iterator[list[tuple[str, Tensor]]]:
    """A list of what each reading layer is given, by its own name for it, as it runs."""
    read: list[tuple[str, Tensor]] = []
    with ExitStack() as stack:
        for name in dict.fromkeys(layer for found in readers.values() for layer, _ in found):

            def pre_hook(_: nn.Module, args: tuple[Tensor, ...], name: str = name) -> tuple[Tensor, ...]:
                if not args or not args[0].requires_grad:
                    return args  # called by keyword, or cut off from the loss
                # A view of its own: the gradient by what this layer alone reads.
                own = args[0].view_as(args[0])
                read.append((name, own))
                return (own, *args[1:])

            stack.callback(model.get_submodule(name).register_forward_pre_hook(pre_hook).remove)
        yield read


def _floats(outputs: Any) -> list[Tensor]:
    return [leaf for leaf in pytree.tree_leaves(outputs) if _is_float(leaf)]


def _is_float(leaf: object) -> bool:
    return isinstance(leaf, Tensor) and leaf.dim() > 0 and leaf.is_floating_point() and leaf.requires_grad


@contextmanager
def differentiable(parameters: Iterable[nn.Parameter]) -> Iterator[None]:
    """Floating parameters require gradients inside; afterwards those that did before."""
    required = [(p, p.requires_grad) for p in parameters if p.is_floating_point()]
    try:
        for parameter, _ in required:
            parameter.requires_grad_(True)
        yield
    finally:
        for parameter, before in required:
            parameter.requires_grad_(before)
