"""Networks as files: standard ONNX graphs for other programs, and packed weights."""
