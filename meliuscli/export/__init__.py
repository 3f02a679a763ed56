"""Networks as files: standard ONNX graphs for other programs, and packed weights."""

from meliuscli.work.packages import is_function_too

is_function_too(__name__)
