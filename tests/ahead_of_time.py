"""Triton kernels compiled for a card that is not here: ptxas comes with the package, and needs none."""

from __future__ import annotations

from typing import Any

SHARED = {80: 166_912, 90: 232_448}
"""Bytes of shared memory that a block may have, by architecture."""


def shared_memory(kernel: Any, types: dict[str, str], constants: dict[str, Any], arch: int, **options: int) -> int:
    """Compile a kernel down to machine code, and tell how much shared memory a block takes.

    Args:
        kernel: a `triton.jit` function.
        types: Triton's word for each argument, "*fp32" or "i32"; those of `constants` left out.
        constants: the values of its `tl.constexpr` arguments.
        arch: 80 for an A100, 90 for an H100.
        options: num_warps, num_stages, enable_fp_fusion.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    signature = {name: "constexpr" if name in constants else types[name] for name in names}
    source = ASTSource(kernel, signature, {(names.index(name),): value for name, value in constants.items()})
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"enable_fp_fusion": True, **options})
    assert compiled.asm["cubin"]
    return int(compiled.metadata.shared)
