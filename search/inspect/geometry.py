"""Where the columns and rows of a picture are, in pixels from the upper left corner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from search.inspect.drawing import LETTER

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.inspect.layers import Layer

MARGIN = 28.0
#: Longest bars of outputs and of multiply-adds, and what else the columns need.
BAR, MACS_BAR, KIND, NUMBER, REMARK = 220.0, 110.0, 88.0, 56.0, 300.0
#: Names are elided beyond this; the whole one is in the tip.
MOST_LETTERS = 48
#: All rails together.
_RAILS = 330.0
#: Head and headings above the first row, and the least width that they need.
_HEAD, _HEADINGS, LEGEND_PITCH, _LEAST_WIDTH = 124.0, 36.0, 18.0, 960.0


@dataclass(frozen=True, slots=True)
class Geometry:
    """Left ends of the columns, height of the rows, and sizes that follow from how many there are.

    Attributes:
        pitch: From one row to the next.
        lane: From one rail to the next.
        names: Left end of the layers' names; rails are to the left of it.
        kinds: Left end of the kinds of layers.
        bars: Left end of the bars of outputs.
        macs: Left end of the bars of multiply-adds.
        remarks: Left end of the remarks.
        legend: Top of the legend.
        top: Top of the first row.
        width: Of the picture.
        height: Of the picture.
    """

    pitch: float
    lane: float
    names: float
    kinds: float
    bars: float
    macs: float
    remarks: float
    legend: float
    top: float
    width: float
    height: float

    @classmethod
    def of(cls, layers: Sequence[Layer], *, lanes: int, legend_rows: int, has_remarks: bool) -> Geometry:
        """Room for these rows, so many lanes of rails, and so many rows of groups in the legend."""
        pitch = 20.0 if len(layers) <= 70 else 17.0 if len(layers) <= 140 else 14.0
        lane = max(3.5, min(0.7 * pitch, _RAILS / max(lanes, 1)))
        names = MARGIN + lanes * lane + 12
        letters = min(MOST_LETTERS, max((len(layer.name) for layer in layers), default=0))
        kinds = names + letters * LETTER * font_size(pitch) + 18
        bars = kinds + KIND
        macs = bars + BAR + NUMBER
        remarks = macs + MACS_BAR + NUMBER
        top = _HEAD + 30 + LEGEND_PITCH * legend_rows + _HEADINGS
        return cls(
            pitch=pitch,
            lane=lane,
            names=names,
            kinds=kinds,
            bars=bars,
            macs=macs,
            remarks=remarks,
            legend=_HEAD,
            top=top,
            width=max(_LEAST_WIDTH, remarks + (REMARK if has_remarks else 0) + MARGIN),
            height=top + len(layers) * pitch + MARGIN + 20,
        )

    def middle(self, row: float) -> float:
        """Height of the middle of a row."""
        return self.top + (row + 0.5) * self.pitch

    def rail(self, lane: int) -> float:
        """Where a lane's rail runs; lane 0 is next to the names."""
        return self.names - 12 - (lane + 0.5) * self.lane


def font_size(pitch: float) -> float:
    """Of text in rows of this height."""
    return 0.58 * pitch
