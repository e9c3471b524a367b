"""The sweep: one forward and one backward pass over the calibration data, for all criteria at once."""

from __future__ import annotations

from collections import defaultdict
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evaluators.calibration import first_samples, joined, part_of
from evaluators.options import OptionError
from evaluators.scoring import call, eval_mode
from evaluators.statistics.curvature import differentiable
from evaluators.statistics.layers import Layer, find_layers, watched
from evaluators.statistics.records import Statistics, UnitStatistics
from evaluators.statistics.sites import channels_last, input_channels, num_channels, num_groups
from evaluators.statistics.sums import ChannelSums, MomentSums, joint_histogram, moments_bytes, num_columns
from evaluators.statistics.targets import collect_targets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from evaluators.precision import Precision
    from evaluators.task import Batch, Task
    from spaces import ChannelGroup, Space

#: Samples below which nothing can be estimated.
LEAST_SAMPLES = 8
DEFAULT_MEMORY = 4 * 2**30
_UNITS = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10, "B": 1}
_NUM_BINS = 32
#: Samples, and positions per layer, that estimate how much its outputs vary.
_VARIANCE_SAMPLES, _VARIANCE_ROWS = 128, 4096


def gather(
    task: Task,
    space: Space,
    batches: Sequence[Batch] | Iterable[Batch],
    precision: Precision,
    *,
    seed: int,
    memory: int = DEFAULT_MEMORY,
) -> Statistics:
    """Second moments of all layers that read a group, statistics of all units, gradients of all weights.

    The dense network runs in eval mode and fp32, once forward and once backward over ``batches``; it keeps
    its weights, modes and ``requires_grad``, and is moved to the precision's device.

    Args:
        task: With a trained model.
        space: Traced from it.
        batches: Calibration batches, on the precision's device; the same at every iteration.
        precision: Device.
        seed: Of the sampled positions.
        memory: Bytes that the second moments may take; layers that do not fit, the largest first, are
            approximated per channel and named in the warnings.

    Raises:
        OptionError: If there are too few samples, or the memory is too small for any layer.
        FloatingPointError: If an activation is not finite; names the layer.
    """
    model = precision.exact.place(task.model)
    num_batches, samples = 0, 0
    first: Any = None
    for inputs, targets in batches:
        first = (inputs, targets) if first is None else first
        num_batches, samples = num_batches + 1, samples + len(targets)
    _check_samples(task, samples)
    layers = find_layers(model, part_of(first, 2))
    sweep = _Sweep(model, space.groups, layers, num_batches, memory, seed)
    with eval_mode(model), differentiable(model.parameters()), sweep.watching():
        for batch in batches:
            sweep.add(task, batch)
    importance = _importance(model, layers, list(sweep.moment_sums), joined(batches, _VARIANCE_SAMPLES), seed)
    return Statistics(
        moments={
            name: sums.moments(importance[name])
            for name, sums in sweep.moment_sums.items()
            if name in importance
        },
        units=sweep.units(),
        gradients={name: (total / sweep.samples).cpu() for name, total in sweep.gradients.items()},
        warnings=sweep.warnings(),
    )


def check_calibration(task: Task, space: Space, memory: int) -> None:
    """Refuse, before anything is written, what :func:`gather` would refuse after the dense training.

    Reads a few calibration batches; a pretrained model runs once, on the CPU.

    Raises:
        OptionError: If there are too few samples, or the memory is too small for any layer.
        FloatingPointError: If an activation of a pretrained model is not finite; names the layer.
    """
    with torch.random.fork_rng(devices=[]):
        loader = task.train if task.calibration is None else task.calibration
        few = list(first_samples(loader, LEAST_SAMPLES))
    _check_samples(task, sum(len(targets) for _, targets in few))
    model = task.model
    with eval_mode(model), torch.no_grad():
        layers = find_layers(model, part_of(few[0], 2))
        _that_fit({name: model.get_submodule(name) for name in _readers(space.groups, layers)}, memory)
        if task.pretrained:
            with watched(model, _check_finite, _check_finite):
                call(model, part_of(few[0], LEAST_SAMPLES))


def _check_samples(task: Task, samples: int) -> None:
    if samples < LEAST_SAMPLES:
        rule = f"calibrates on {samples} samples; at least {LEAST_SAMPLES} are needed."
        raise OptionError("task", task.name, rule)


def _check_finite(name: str, module: nn.Module, inputs: Tensor, output: Tensor) -> None:
    del module
    for what, values in (("reads", inputs), ("puts out", output)):
        if not values.isfinite().all():
            raise FloatingPointError(f"layer {name!r} {what} NaN or infinity on calibration data.")


class _Sweep:
    """What has been summed up so far."""

    def __init__(
        self,
        model: nn.Module,
        groups: Sequence[ChannelGroup],
        layers: Mapping[str, Layer],
        num_batches: int,
        memory: int,
        seed: int,
    ) -> None:
        self.model, self.groups = model, groups
        self.samples = 0
        self.gradients: dict[str, Tensor] = {
            name: torch.zeros_like(p) for name, p in model.named_parameters() if p.is_floating_point()
        }
        self._readers = _readers(groups, layers)
        self._modules = {name: model.get_submodule(name) for name in self._readers}
        whole = _that_fit(self._modules, memory)
        self.moment_sums = {
            name: MomentSums(name, module, num_batches, whole=name in whole)
            for name, module in self._modules.items()
        }
        self._channels = {
            name: ChannelSums.of(num_channels(module)) for name, module in self._modules.items()
        }
        self._gate_sums = {g.name: torch.zeros(2, g.width, dtype=torch.float64) for g in groups}
        self._gates: dict[str, Tensor] = {}
        self._generator = torch.Generator().manual_seed(seed)

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on the layers that read a group."""
        with ExitStack() as stack:
            for name, module in self._modules.items():
                stack.callback(module.register_forward_pre_hook(self._reader(name)).remove)
                stack.callback(module.register_forward_hook(self._observer(name)).remove)
            yield

    def _reader(self, name: str) -> Any:
        """Catches the gradient by what this layer alone reads."""

        def pre_hook(module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...] | None:
            inputs = args[0]
            if not inputs.isfinite().all():
                raise FloatingPointError(f"layer {name!r} reads NaN or infinity on calibration data.")
            if not inputs.requires_grad:
                return None
            own = inputs.view_as(inputs)

            def caught(gradient: Tensor) -> None:
                products = channels_last(module, inputs.detach() * gradient)
                gates = products.flatten(1, -2).sum(1) if products.dim() > 2 else products
                self._gates[name] = self._gates.get(name, 0) + gates.double()

            own.register_hook(caught)  # type: ignore[no-untyped-call]
            return (own, *args[1:])

        return pre_hook

    def _observer(self, name: str) -> Any:
        def hook(module: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            inputs = args[0].detach()
            self.moment_sums[name].add(inputs, output, self._generator)
            self._channels[name].add(module, inputs)

        return hook

    def add(self, task: Task, batch: Batch) -> None:
        """One batch, forward and backward."""
        inputs, targets = batch
        parameters = {n: p for n, p in self.model.named_parameters() if n in self.gradients}
        self._gates.clear()
        loss = task.compute_loss(call(self.model, inputs), targets)
        gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            if gradient is not None:
                self.gradients[name].add_(gradient, alpha=len(targets))
        self.samples += len(targets)
        for group in self.groups:
            gates = self._gates_of(group, len(targets))
            if gates is not None:
                # The loss is a mean over the batch: a sample's own gradient is larger by the batch's size.
                own = gates.cpu() * len(targets)
                self._gate_sums[group.name] += torch.stack([own.sum(0), own.square().sum(0)])

    def _gates_of(self, group: ChannelGroup, samples: int) -> Tensor | None:
        """``(samples, width)``, summed over all slots that read the unit."""
        parts = [
            # Attention in windows folds positions into the samples.
            self._gates[name][:, slots].sum(2).view(samples, -1, group.width).sum(1)
            for name, slots in self._slots(group)
            if name in self._gates and len(self._gates[name]) % samples == 0
        ]
        return torch.stack(parts).sum(0) if parts else None

    def _slots(self, group: ChannelGroup) -> list[tuple[str, Tensor]]:
        """Reading layers, and which ``(width, n)`` of their input channels each unit owns."""
        places = [(name, slots) for name, found in self._readers.items() for g, slots in found if g is group]
        return [(name, input_channels(self._modules[name], slots)) for name, slots in places]

    def units(self) -> dict[str, UnitStatistics]:
        """Of every group that some layer reads."""
        return {group.name: self._unit(group) for group in self.groups if self._slots(group)}

    def _unit(self, group: ChannelGroup) -> UnitStatistics:
        places = [(self._channels[name], slots) for name, slots in self._slots(group)]
        mean, absolute, square, zeros = (
            torch.stack([(getattr(sums, name) / sums.count)[slots].mean(1) for sums, slots in places]).mean(0)
            for name in ("mean", "absolute", "square", "zeros")
        )
        ranks = [sums.rank[slots].mean(1) for sums, slots in places if sums.rank is not None]
        samples = [torch.cat(sums.samples)[:, slots].mean(2) for sums, slots in places]
        gradient, gradient_square = self._gate_sums[group.name] / self.samples
        return UnitStatistics(
            mean=mean,
            absolute=absolute,
            square=square,
            zeros=zeros,
            histogram=joint_histogram(samples, _NUM_BINS),
            rank=torch.stack(ranks).mean(0) if ranks else None,
            gradient=gradient,
            gradient_square=gradient_square,
        )

    def warnings(self) -> tuple[str, ...]:
        """What was approximated, and what rests on few numbers."""
        found = []
        coarse = [name for name, sums in self.moment_sums.items() if not sums.whole]
        if coarse:
            found.append(f"Second moments per channel only, for lack of memory: {', '.join(coarse)}.")
        thin = [
            name
            for name, sums in self.moment_sums.items()
            if sums.num_rows < num_columns(self._modules[name])
        ]
        if thin:
            found.append(f"Fewer calibration positions than inputs: {', '.join(thin)}.")
        return tuple(found)


def _readers(
    groups: Sequence[ChannelGroup], layers: Mapping[str, Layer]
) -> dict[str, list[tuple[ChannelGroup, Tensor]]]:
    """Layers that read a group, and the ``(width, n)`` slots of each unit in their weights' dimension 1."""
    found: dict[str, list[tuple[ChannelGroup, Tensor]]] = defaultdict(list)
    for group in groups:
        for member in group.members:
            name = member.tensor.removesuffix(".weight")
            if member.role == "input" and member.dim == 1 and name in layers:
                found[name].append((group, torch.from_numpy(member.slots.copy())))
    return dict(found)


def _that_fit(modules: Mapping[str, nn.Module], memory: int) -> set[str]:
    """The layers, the smallest first, whose second moments fit together."""
    room, fitting = memory, set()
    sizes = sorted((moments_bytes(module), name) for name, module in modules.items())
    for size, name in sizes:
        room -= size
        if room < 0:
            break
        fitting.add(name)
    if sizes and not fitting:
        least, name = sizes[0]
        rule = f"the second moments of the smallest layer, {name}, need {_readable(least)}."
        raise OptionError("statistics-memory", _readable(memory), rule)
    return fitting


def _readable(size: int) -> str:
    """Bytes in the largest unit that is not above them."""
    unit, factor = next((u, f) for u, f in _UNITS.items() if size >= f or f == 1)
    return f"{size / factor:.3g}{unit}"


def _importance(
    model: nn.Module, layers: Mapping[str, Layer], names: Sequence[str], inputs: Any, seed: int
) -> dict[str, Tensor]:
    """``(conv groups, outputs)`` by layer: squared gain of the norm by the variance of what is judged."""
    wanted = {name: layers[name] for name in names}
    targets = collect_targets(model, wanted, inputs, lambda _: _VARIANCE_ROWS, seed)
    found = {}
    for name, target in targets.items():
        values = target.values.double().cpu()
        total = values.var(0).sum() if len(values) > 1 else torch.zeros((), dtype=torch.float64)
        gain = norm_gain(model, layers[name], values.shape[1]) ** 2
        share = gain / total if total > 0 else torch.zeros_like(gain)
        found[name] = share.view(num_groups(model.get_submodule(name)), -1)
    return found


def norm_gain(model: nn.Module, layer: Layer, outputs: int) -> Tensor:
    """``(outputs,)`` float64: what the BatchNorm behind a layer multiplies in eval mode; 1 without one."""
    if layer.norm is None:
        return torch.ones(outputs, dtype=torch.float64)
    norm = model.get_submodule(layer.norm)
    assert isinstance(norm.running_var, Tensor)
    gain = 1 / (norm.running_var.detach().double() + norm.eps).sqrt()  # type: ignore[operator]
    weight = norm.weight
    return (gain * weight.detach().double() if isinstance(weight, Tensor) else gain).cpu()
