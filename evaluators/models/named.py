"""A model by name: built in, from torchvision or timm, or made by a function in a user's file."""

from __future__ import annotations

import importlib
import inspect
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torchvision import models as torchvision_models

from evaluators.models import CIFAR_MODELS, DigitsCnn, load_weights
from evaluators.models.inputs import example_inputs, random_tensor
from evaluators.options import OptionError, choose
from evaluators.user_code import load_function

if TYPE_CHECKING:
    from pathlib import Path

#: Sizes of images and frames where a model's own weights name none, and frames of a video.
_PIXELS, _FLOW_PIXELS, _FRAMES = 224, 128, 16

#: What every message about an unknown name ends with.
_FORMS = "torchvision:NAME, timm:NAME or path/to/file.py:function"


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A model and what it is called with.

    Attributes:
        name: As it was asked for.
        model: In fp32 on the CPU.
        example_inputs: A tensor, a tuple of arguments or a dict of keyword arguments.
    """

    name: str
    model: nn.Module
    example_inputs: Any


def load_model(name: str, *, weights: Path | None = None, inputs: str | None = None) -> NamedModel:
    """Make a model with random weights or with those of a file; nothing is downloaded.

    Args:
        name: A built-in model such as ``resnet20``; ``torchvision:NAME``; ``timm:NAME``; or
            ``path/to/file.py:function``, a function without arguments that returns a module, or a module
            and its example inputs.
        weights: Loaded as :func:`evaluators.models.load_weights` does: code in the file never runs.
        inputs: Shapes as in :func:`evaluators.models.inputs.example_inputs`; by default what the model is
            made for.

    Raises:
        OptionError: If the name is unknown, its library is missing, the function returns something else,
            weights do not fit, or no shape is known.
    """
    given: Any = None if inputs is None else example_inputs(inputs)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        model, default = _made(name)
    if weights is not None:
        load_weights(model, weights)
    if given is None:
        given = default
    elif _is_detector(model):
        given = ([image for batch in _as_tuple(given) for image in (batch if batch.dim() == 4 else [batch])],)
    if given is None:
        rule = f"name the shapes that {name} takes, such as 1x3x224x224; it returns no example inputs."
        raise OptionError("input", "is missing", rule)
    return NamedModel(name, model, given)


def _made(name: str) -> tuple[nn.Module, Any]:
    """The model, and its default inputs where they are known."""
    if ".py:" in name:
        return _users(name)
    source, colon, rest = name.partition(":")
    if colon and source == "torchvision":
        return _from_torchvision(name, rest)
    if colon and source == "timm":
        return _from_timm(name, rest)
    if name in CIFAR_MODELS:
        return CIFAR_MODELS[name](), random_tensor((1, 3, 32, 32))
    if name == "digits":
        return DigitsCnn(), random_tensor((1, 1, 8, 8))
    if name in torchvision_models.list_models():
        raise OptionError("model", repr(name), f"unknown model; did you mean torchvision:{name}?")
    rule = f"unknown model; choose one of {', '.join(sorted([*CIFAR_MODELS, 'digits']))}, or {_FORMS}."
    raise OptionError("model", repr(name), rule)


def _users(name: str) -> tuple[nn.Module, Any]:
    returned = load_function("model", name)()
    pair = returned if isinstance(returned, tuple) and len(returned) == 2 else (returned, None)
    if not isinstance(pair[0], nn.Module):
        what = type(returned).__name__
        raise OptionError("model", name, f"must return a module, or a module and its inputs, got {what}.")
    return pair


def _from_torchvision(name: str, rest: str) -> tuple[nn.Module, Any]:
    choose("model", name, [f"torchvision:{known}" for known in torchvision_models.list_models()])
    builder = torchvision_models.get_model_builder(rest)
    accepted = inspect.signature(builder).parameters
    options: dict[str, Any] = {"weights": None}
    if "weights_backbone" in accepted:  # else the backbone's weights are downloaded
        options["weights_backbone"] = None
    room = builder.__module__.split(".")[-2:]
    if "googlenet" in room or "inception" in room:  # seconds of drawing from a truncated normal
        options["init_weights"] = False
    pixels = _crop_size(rest)
    if "video" in room:
        return builder(**options), random_tensor((1, 3, _FRAMES, pixels, pixels))
    if "optical_flow" in room:
        frame = partial(random_tensor, (1, 3, _FLOW_PIXELS, _FLOW_PIXELS))
        return builder(**options), (frame(), frame())
    model = builder(**options)
    if _is_detector(model):
        return model, ([random_tensor((3, pixels, pixels))],)
    return model, random_tensor((1, 3, pixels, pixels))


def _crop_size(name: str) -> int:
    """Pixels that the published weights were trained for."""
    published = list(torchvision_models.get_model_weights(name))
    sizes = getattr(published[0].transforms(), "crop_size", None) if published else None
    return int(sizes[0]) if sizes else _PIXELS


def _is_detector(model: nn.Module) -> bool:
    """Whether it takes a list of images, as torchvision's detection models do."""
    return type(model).__module__.startswith("torchvision.models.detection.")


def _from_timm(name: str, rest: str) -> tuple[nn.Module, Any]:
    try:
        timm = importlib.import_module("timm")
    except ImportError as error:
        raise OptionError(
            "model", repr(name), "needs timm, which is not installed: pip install timm."
        ) from error
    if not timm.is_model(rest):
        choose("model", name, [f"timm:{known}" for known in timm.list_models()])
    model = timm.create_model(rest, pretrained=False)
    size = (getattr(model, "pretrained_cfg", None) or {}).get("input_size") or (3, _PIXELS, _PIXELS)
    return model, random_tensor((1, *size))


def _as_tuple(inputs: Any) -> tuple[Any, ...]:
    return inputs if isinstance(inputs, tuple) else (inputs,)
