"""``python -m search.pick``: networks of a front to look at or to take away."""
