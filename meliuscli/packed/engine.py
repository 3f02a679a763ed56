"""IR to functions of this process: verified, compiled once, called through ctypes (which lets go of Python's lock)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from meliuscli.packed.isa import ARM, Isa, is_arm, llvm

_lock = threading.Lock()
_engines: dict[str, Any] = {}
_addresses: dict[tuple[str, str], int] = {}


def address_of(isa: Isa, name: str, make: Callable[[], str]) -> int:
    """The address of the kernel ``name``, compiled from the IR of ``make`` when first asked for."""
    with _lock:
        key = (isa.name, name)
        if key not in _addresses:
            _addresses[key] = _compile(isa, name, make())
        return _addresses[key]


def _compile(isa: Isa, name: str, text: str) -> int:
    engine = _engines.get(isa.name)
    if engine is None:
        engine = _engines[isa.name] = llvm().create_mcjit_compiler(llvm().parse_assembly(""), target_machine(isa))
    module = optimised(isa, text)
    engine.add_module(module)
    engine.finalize_object()
    return int(engine.get_function_address(name))


def optimised(isa: Isa, text: str) -> Any:
    """The verified and optimised LLVM module of an IR text."""
    binding = llvm()
    module = binding.parse_assembly(text)
    module.verify()
    builder = binding.create_pass_builder(target_machine(isa), binding.create_pipeline_tuning_options(2))
    passes = binding.create_new_module_pass_manager()
    for add in ("instruction_combine", "new_gvn", "simplify_cfg"):
        getattr(passes, f"add_{add}_pass")()
    passes.run(module, builder)
    return module


def target_machine(isa: Isa, jit: bool = True) -> Any:
    """LLVM's target: this machine with what the instruction set takes of it, or an ARM one."""
    binding = llvm()
    triple = binding.get_process_triple()
    if isa.name == "neon" and not is_arm():
        binding.initialize_all_targets()
        binding.initialize_all_asmprinters()
        triple, cpu, features = ARM, "generic", "+neon"
    else:
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        host = binding.get_host_cpu_name(), binding.get_host_cpu_features().flatten()
        cpu, features = host if isa.target is None else isa.target
    target = binding.Target.from_triple(triple)
    return target.create_target_machine(cpu=cpu, features=features, opt=3, jit=jit)
