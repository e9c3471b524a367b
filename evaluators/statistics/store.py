"""Statistics as flat, named tensors: how they lie in a run folder."""

from __future__ import annotations

import json
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from evaluators.statistics.records import Moments, Statistics, UnitStatistics

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

_PARTS: dict[str, Any] = {"moments": Moments, "units": UnitStatistics}
_PLAIN = ("gradients", "curvature", "removals")
_Record = TypeVar("_Record", Moments, UnitStatistics)


def to_tensors(statistics: Statistics) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors by unique names, and what else has to be kept, as texts."""
    tensors: dict[str, Tensor] = {}
    for part in _PARTS:
        for key, record in getattr(statistics, part).items():
            for field in fields(record):
                value = getattr(record, field.name)
                if field.name not in ("layer", "taps") and value is not None:
                    tensors[f"{part}|{key}|{field.name}"] = value
    for part in _PLAIN:
        tensors |= {f"{part}|{key}": tensor for key, tensor in getattr(statistics, part).items()}
    taps = {name: moments.taps for name, moments in statistics.moments.items()}
    return tensors, {"taps": json.dumps(taps), "warnings": json.dumps(statistics.warnings)}


def from_tensors(tensors: Mapping[str, Tensor], texts: Mapping[str, str]) -> Statistics:
    """The inverse of :func:`to_tensors`."""
    taps = json.loads(texts["taps"])
    records: dict[str, dict[str, dict[str, Tensor]]] = {part: {} for part in _PARTS}
    plain: dict[str, dict[str, Tensor]] = {part: {} for part in _PLAIN}
    for name, tensor in tensors.items():
        part, key, *field = name.split("|")
        if field:
            records[part].setdefault(key, {})[field[0]] = tensor
        else:
            plain[part][key] = tensor
    # In the order of the first run: floating-point sums over layers depend on it.
    moments = {
        key: _filled(Moments, records["moments"][key], layer=key, taps=count) for key, count in taps.items()
    }
    units = {key: _filled(UnitStatistics, values) for key, values in records["units"].items()}
    return Statistics(moments, units, **plain, warnings=tuple(json.loads(texts["warnings"])))


def _filled(kind: type[_Record], values: Mapping[str, Tensor], **others: object) -> _Record:
    """A record; what was not stored is ``None``."""
    found: dict[str, Any] = {field.name: values.get(field.name) for field in fields(kind)}
    return kind(**(found | others))
