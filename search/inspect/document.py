"""An inspection for programs: one JSON document with stable keys."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search.inspect.inspection import Inspection

SCHEMA = 1


def document(found: Inspection) -> dict[str, Any]:
    """Keys are added in later versions, never renamed; ``schema`` grows when a meaning changes."""
    return {
        "schema": SCHEMA,
        "model": found.model,
        "inputs": list(found.inputs),
        "settings": dict(found.settings),
        "trace_seconds": round(found.seconds, 3),
        "dense": {"macs": found.dense_macs, "params": found.dense_params},
        "smallest": {
            "macs": found.least_macs,
            "params": found.least_params,
            "macs_share": _share(found.least_macs, found.dense_macs),
            "params_share": _share(found.least_params, found.dense_params),
        },
        "log10_architectures": found.log10_architectures,
        "groups": [asdict(group) for group in found.groups],
        "mends": [
            asdict(mend.attribute) | {"fixed": mend.fixed, "per_unit": dict(mend.per_unit)}
            for mend in found.mends
        ],
        "frozen": [asdict(one) for one in found.frozen],
        "layers": [
            asdict(layer) | {"parts": dict(layer.parts), "stays": layer.stays} for layer in found.layers
        ],
        "other_macs": found.other_macs,
        "warnings": list(found.warnings),
    }


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0
