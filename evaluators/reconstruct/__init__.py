"""Closed-form re-fit of the layers that read a pruned group."""
