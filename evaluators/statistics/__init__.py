"""What the dense network does with calibration data, gathered once: moments, activations, gradients."""
