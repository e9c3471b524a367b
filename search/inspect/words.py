"""An inspection in sentences that the table, the picture and the page share."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from search.inspect.names import in_words, one_line
from search.report.words import count, duration, share

if TYPE_CHECKING:
    from collections.abc import Sequence

    from search.inspect.bundles import Bundle
    from search.inspect.inspection import GroupFacts, Inspection
    from search.inspect.layers import Layer
    from spaces.attributes import Mend


def summary_lines(found: Inspection) -> list[str]:
    """Size, what can be reached, how many architectures, and how the space was narrowed."""
    inputs = f" for {', '.join(found.inputs)}" if found.inputs else ""
    lines = [f"{count(found.dense_macs)} MACs{inputs}, {count(found.dense_params)} parameters"]
    if found.groups:
        lines.append(
            f"{_plural(len(found.groups), 'group')}, 10^{found.log10_architectures:.1f} architectures; "
            f"down to {part(found.least_macs, found.dense_macs)} of the MACs "
            f"({count(found.least_macs)}) and {part(found.least_params, found.dense_params)} of the "
            f"parameters ({count(found.least_params)})"
        )
    else:
        lines.append("nothing in it can be pruned")
    if found.mends:
        lines.append(f"integers of its modules that follow the widths: {_mended(found.mends)}")
    lines.append(f"traced in {duration(found.seconds)}; {_settings(found)}")
    return lines


def _mended(mends: Sequence[Mend]) -> str:
    names = Counter(
        m.attribute.name if m.attribute.index is None else f"{m.attribute.name}[{m.attribute.index}]"
        for m in mends
    )
    return one_line(", ".join(f"{name} of {_plural(n, 'module')}" for name, n in names.items()), 300)


def _settings(found: Inspection) -> str:
    settings = found.settings
    said = [f"widths are multiples of {settings['divisor']}"] if settings["divisor"] > 1 else []
    if settings["smallest"]:
        said.append(f"every group keeps at least {100 * settings['smallest']:.3g}% of its units")
    said += [f"{n} {' '.join(settings[n])}" for n in ("include", "exclude", "ignore") if settings[n]]
    for name in ("divisor_of", "smallest_of"):
        said += [f"{name.replace('_', ' ')} {p} is {number}" for p, number in settings[name].items()]
    return one_line("; ".join(said) or "every group may keep a single unit", 400)


def coupling_words(group: GroupFacts) -> str:
    """Which layers a group couples; nothing for a single one, whose name is the group's."""
    if len(group.layers) < 2:
        return ""
    return f"{len(group.layers)} layers: {in_words(group.layers)}"


def place_words(bundle: Bundle) -> str:
    """Operator, modules and lines at which a bundle was frozen."""
    modules = in_words([module for module, _ in bundle.places if module], 2)
    lines = list(dict.fromkeys(line for _, line in bundle.places if line))
    shown = ", ".join(lines[:2]) + (f" and {len(lines) - 2} more" if len(lines) > 2 else "")
    parts = [bundle.operator or "", f"in {modules}" if modules else "", f"at {shown}" if shown else ""]
    return " ".join(some for some in parts if some)


def units(group: GroupFacts) -> str:
    """How many units of which kind: ``64 channels``, ``12 heads of 64``."""
    noun, of, size = group.unit.partition(" of ")
    return f"{_plural(group.width, noun)}{of}{size}"


def part(some: float, whole: float) -> str:
    """A share in percent; of nothing it is nothing."""
    if not some or not whole:
        return "0%"
    return share(some, whole) if some / whole >= 0.0005 else "<0.1%"


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def group_tip(group: GroupFacts) -> str:
    """Everything about a group, for a pointer over it."""
    readers = in_words(group.readers) or "nothing"
    lines = [
        f"group {group.name}",
        f"{units(group)}, at least {group.smallest} stay",
        f"computed by {in_words(group.layers)}",
        f"read by {readers}",
        f"{part(group.macs_share, 1)} of MACs, {part(group.params_share, 1)} of parameters depend on it",
    ]
    return "\n".join(lines if group.exact else [*lines, "not exact: a norm or a mean over the units changes"])


def layer_tip(layer: Layer, found: Inspection) -> str:
    """Everything about a layer, for a pointer over it."""
    lines = [f"{layer.name}  {layer.kind}"]
    lines += [f"{outputs} outputs in group {name}" for name, outputs in layer.parts]
    if layer.stays:
        why = f": {one_line(layer.reason, 300)}" if layer.reason else ""
        lines.append(f"{layer.stays} outputs stay{why}")
    if layer.reads:
        lines.append(f"reads {in_words(layer.reads)}")
    lines.append(
        f"{count(layer.macs)} MACs ({part(layer.macs, found.dense_macs)}), {count(layer.params)} parameters"
    )
    return "\n".join(lines)
