"""Networks as files for other programs: standard ONNX graphs."""
