"""Models that Espalier must be able to prune, how each is measured, and what is printed about it."""
