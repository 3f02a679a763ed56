"""Bit-packed inference on this CPU: kernels as LLVM IR, compiled at first use (extra ``packed`` = llvmlite, which only
this package imports). ``runner.pack(network, spec)`` is the door."""
