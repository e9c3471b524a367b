"""The careful re-fit: layer by layer on the cut network's own activations, in one forward pass."""

from __future__ import annotations

import logging
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import _disable_current_modes

from evaluators.reconstruct.problem import Problem
from evaluators.reconstruct.shapes import Remains, has_constant, inherited_weights, norm_of, write_back
from evaluators.scoring import eval_mode
from evaluators.statistics.follow import Follow
from evaluators.statistics.gather import norm_gain
from evaluators.statistics.sites import empty_outputs, inputs_at, num_groups, outputs_at
from evaluators.statistics.sums import num_columns
from evaluators.statistics.targets import Target, collect_targets

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from evaluators.precision import Precision
    from evaluators.statistics.layers import Layer
    from spaces.surgery import KeptSlots

logger = logging.getLogger(__name__)

#: Positions per layer: several of each sample, and many times the columns of wide layers.
_LEAST_ROWS, _ROWS_PER_SAMPLE, _ROWS_PER_COLUMN = 2048, 6, 8
#: Outputs whose norm multiplies by less than this share of its largest gain keep their weights: a target
#: divided by such a gain is noise.
_LEAST_GAIN = 1e-3


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """What the dense network does with one batch of calibration inputs; shared by all candidates.

    Attributes:
        inputs: The batch.
        layers: The dense network's.
        targets: What each layer has to reach.
    """

    inputs: Any
    layers: Mapping[str, Layer]
    targets: Mapping[str, Target]

    @classmethod
    def of(cls, dense: nn.Module, layers: Mapping[str, Layer], inputs: Any, seed: int) -> Lesson:
        """One forward pass of the dense network, which is left as it is.

        Args:
            dense: On the inputs' device.
            layers: Its layers, from :func:`evaluators.statistics.layers.find_layers`.
            inputs: One batch.
            seed: Of the sampled positions.
        """
        samples = next(len(leaf) for leaf in pytree.tree_leaves(inputs) if isinstance(leaf, Tensor))

        def num_rows(layer: nn.Module) -> int:
            return max(_LEAST_ROWS, _ROWS_PER_SAMPLE * samples, _ROWS_PER_COLUMN * num_columns(layer))

        return cls(inputs, layers, collect_targets(dense, layers, inputs, num_rows, seed))


def refit_carefully(
    model: nn.Module, dense: nn.Module, slots: KeptSlots, lesson: Lesson, precision: Precision
) -> list[str]:
    r"""Fit each layer to what the dense network puts out, given what the cut network puts in; in place.

    Layers are fitted in the order in which they run, while one batch passes through: each sees the
    activations of those that were fitted before it. A layer that joins a residual sum is fitted to make the
    *sum* equal the dense one's, so it also mends what the shortcut got wrong:

    .. math:: \min_W \big\| \mathrm{bn}(X_\mathrm{cut} W) + s_\mathrm{cut}
              - (\mathrm{bn}(X W_\mathrm{dense}) + s) \big\|^2

    Where a ReLU follows, what is negative in both networks counts as equal. The ridge is chosen on held-out
    positions, and a layer that would do worse there than its inherited weights keeps them, with a constant
    that suits its new inputs. Layers in front of the first one that lost an input read what they always
    read, and stay as they are.

    Args:
        model: The cut network in fp32, on the lesson's device; changed.
        dense: The network that it was cut from.
        slots: What the cut kept, from :func:`spaces.surgery.kept_slots`.
        lesson: From the dense network.
        precision: Autocast of the forward pass; problems are solved in fp32 and float64.

    Returns:
        Names of the layers whose problem was singular or not finite; they keep their inherited weights.
    """
    refit = _Refit(model, dense, slots, lesson, precision)
    with eval_mode(model), torch.no_grad(), precision.context(weights_change=True), refit.hooked():
        refit.run(lesson.inputs)
    if refit.failed:
        logger.warning("no finite re-fit of %s: inherited weights kept", ", ".join(refit.failed))
    return refit.failed


class _Refit(Follow):  # type: ignore[no-untyped-call]
    def __init__(
        self, model: nn.Module, dense: nn.Module, slots: KeptSlots, lesson: Lesson, precision: Precision
    ) -> None:
        super().__init__(model, lesson.layers)
        self._lesson, self._precision = lesson, precision
        self._remains = {
            name: Remains.of(name, dense.get_submodule(name), slots)
            for name in lesson.layers
            if name in lesson.targets
        }
        self._inputs: dict[str, Tensor] = {}
        self._silenced: dict[str, list[nn.Module]] = {}
        self._started = False
        self.failed: list[str] = []

    @contextmanager
    def hooked(self) -> Iterator[None]:
        """Layers are fitted before they run; those that join a sum run when the other operand is there."""
        with ExitStack() as stack:
            for name in self._remains:
                stack.callback(self._restore, name)
                stack.callback(self.modules[name].register_forward_pre_hook(self._before(name)).remove)
            yield

    def _before(self, name: str) -> Any:
        layer = self.layers[name]

        def pre_hook(module: nn.Module, args: tuple[Tensor, ...]) -> None:
            self._started = self._started or self._remains[name].is_narrower
            if not self._started:
                return
            if layer.joins:
                self._inputs[name] = args[0]
                # What it and its norm put out now would be thrown away at the sum.
                module.forward = lambda inputs: empty_outputs(module, inputs)
                self._silenced[name] = [module]
                norm = norm_of(self.model, layer.norm)
                if norm is not None:
                    norm.forward = lambda inputs: inputs
                    self._silenced[name].append(norm)
            else:
                with _disable_current_modes():  # the fit's own operators are of no interest
                    self._fit(layer, module, args[0], None)

        return pre_hook

    def joins(self, layer: Layer, own: Tensor, other: Tensor) -> Tensor | None:
        del own  # was not computed
        inputs = self._inputs.pop(layer.name, None)
        if inputs is None:
            return None
        module, norm = self.modules[layer.name], norm_of(self.model, layer.norm)
        self._restore(layer.name)
        self._fit(layer, module, inputs, other)
        with self._precision.context(
            weights_change=True
        ):  # operators that handle a dispatch are called outside of autocast
            outputs = _plain_forward(module, inputs)
            return outputs if norm is None else _plain_forward(norm, outputs)

    def _restore(self, name: str) -> None:
        """The class's own forward is in force again."""
        for module in self._silenced.pop(name, []):
            del module.forward

    def _fit(self, layer: Layer, module: nn.Module, inputs: Tensor, other: Tensor | None) -> None:
        target, remains = self._lesson.targets[layer.name], self._remains[layer.name]
        norm, groups = norm_of(self.model, layer.norm), num_groups(module)
        wanted = target.values[:, remains.channels_out.to(inputs.device)]
        gain = norm_gain(self.model, layer, wanted.shape[1]).to(wanted)
        offset = torch.zeros_like(wanted)
        if other is not None:
            offset = outputs_at(module, other, target.sites).to(wanted)
        if norm is not None:
            mean, shift = norm.running_mean, norm.bias
            assert isinstance(mean, Tensor)
            offset = offset - gain * mean
            offset = offset + shift if isinstance(shift, Tensor) else offset
        worth = gain.abs() > _LEAST_GAIN * gain.abs().max()
        problem = Problem(
            x=inputs_at(module, inputs, target.sites).to(wanted),
            wanted=_by_group(wanted, groups),
            gain=_by_group(torch.where(worth, gain, torch.ones_like(gain))[None], groups),
            offset=_by_group(offset, groups),
            importance=_by_group((gain * worth)[None], groups)[:, 0].square().double().cpu(),
            rectified=layer.rectified,
            constant=has_constant(module, norm),
        )
        try:
            with self._precision.exact.context():
                fitted = problem.solve(inherited_weights(module))
        except ArithmeticError:
            self.failed.append(layer.name)
            return
        if fitted is not None:
            write_back(module, norm, *fitted, rows=worth)


def _plain_forward(module: nn.Module, inputs: Tensor) -> Tensor:
    """Without hooks."""
    outputs: Tensor = module.forward(inputs)
    return outputs


def _by_group(values: Tensor, groups: int) -> Tensor:
    """``(rows, outputs)`` to ``(conv groups, rows, outputs of each)``."""
    return values.reshape(len(values), groups, -1).movedim(1, 0)
