"""Triton kernels without a GPU: compiled for one, as ptxas comes with the package, or interpreted."""

from __future__ import annotations

import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

SHARED = {80: 166_912, 90: 232_448}
"""Bytes of shared memory that a block may have, by architecture."""


class Taken(NamedTuple):
    """What a kernel takes.

    Attributes:
        shared: bytes of shared memory of a block.
        registers: of a thread, 255 at most.
        stack: bytes of a thread, where registers are spilled to.
    """

    shared: int
    registers: int
    stack: int


def numpy_is_too_new_for_the_interpreter() -> bool:
    """Triton 3.6's interpreter takes an array of one number for a number, which numpy does no more since 2.4."""
    triton = pytest.importorskip("triton")
    version = tuple(int(part) for part in triton.__version__.split(".")[:2])
    return version < (3, 7) and np.lib.NumpyVersion(np.__version__) >= "2.4.0"


def compile_for(kernel: Any, types: dict[str, str], constants: dict[str, Any], arch: int, **options: Any) -> Taken:
    """Compile a kernel down to machine code, as a launch with torch's tensors would.

    Args:
        kernel: a `triton.jit` function.
        types: Triton's word for each argument, "*fp32" or "i32"; those of `constants` left out. Pointers are taken as
            aligned to 16 bytes, as torch's are, and so are integers with "%16" after their word: a launch looks which
            ones are multiples of 16, and the code that it makes of them takes more shared memory.
        constants: the values of its `tl.constexpr` arguments.
        arch: 80 for an A100, 90 for an H100.
        options: num_warps, num_stages, enable_fp_fusion.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    names = kernel.arg_names
    words = {name: "constexpr" if name in constants else types[name] for name in names}
    aligned = [name for name, word in words.items() if word.startswith("*") or word.endswith("%16")]
    source = ASTSource(
        kernel,
        {name: word.removesuffix("%16") for name, word in words.items()},
        {(names.index(name),): value for name, value in constants.items()},
        {(names.index(name),): [["tt.divisibility", 16]] for name in aligned},
    )
    compiled = triton.compile(source, target=GPUTarget("cuda", arch, 32), options={"enable_fp_fusion": True, **options})
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        command = [tool, "--dump-resource-usage", file.name]
        told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+)", told)
    assert found, told
    return Taken(int(compiled.metadata.shared), int(found[1]), int(found[2]))
