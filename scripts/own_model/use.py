"""Use an exported network: ``python scripts/own_model/use.py FOLDER``."""

import sys

from network import Hybrid
from train import accuracy

from spaces import rebuild

model = rebuild(Hybrid, sys.argv[1]).eval()  # the class and the two files are all it takes
heads = [block.attention.num_heads for block in model.blocks]
print(f"{accuracy(model, 'test'):.1%} of test right with {heads} heads")
