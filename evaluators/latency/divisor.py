"""Widths that the hardware likes: whole vectors of channels."""

from __future__ import annotations

import torch

#: Channels that half-precision tensor cores work on at a time: 16 bytes (NVIDIA, Matrix Multiplication
#: Background User's Guide, Tensor Core requirements).
_GPU = 8

#: Numbers in fp32 that a vector of each instruction set holds. The kernels of PyTorch and ONNX Runtime fill
#: up to whole vectors, so what lies in between saves next to nothing. Two 3x3 convolutions of 64 channels
#: whose inner width is cut, 28x28 pixels, batch 1, one Zen 4 core with AVX-512, torch 2.15, ONNX Runtime
#: 1.31; share of the dense latency (``scripts/bench_latency.py --widths`` measures it again):
#:
#:   inner width       32     33     36     40     44     48     52     56     60     62
#:   eager           0.57   0.80   0.80   0.79   0.80   0.79   1.02   1.02   1.02   1.02
#:   ONNX Runtime    0.51   0.71   0.75   0.75   0.75   0.75   1.00   1.00   1.00   1.13
_VECTORS = {"AVX512": 16, "AVX2": 8}
_NARROW = 4


def hardware_divisor(device: str) -> int:
    """Number of channels whose multiples run well on a device of this machine."""
    if device.startswith("cuda"):
        return _GPU
    return _VECTORS.get(torch.backends.cpu.get_cpu_capability(), _NARROW)
