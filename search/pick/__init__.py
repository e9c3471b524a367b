"""``python -m search.pick``: networks of a front to look at or to take away."""

from search.pick.choose import Limits, find_point, pick_point

__all__ = ["Limits", "find_point", "pick_point"]
