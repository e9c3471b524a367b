"""The space of a model, shown before any search: what may be pruned, what stays whole, and why."""
