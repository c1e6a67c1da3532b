"""What `selfseg.__init__` lists is what there is."""

import importlib
import subprocess
import sys
from types import ModuleType

import pytest

import selfseg


@pytest.mark.parametrize("name", selfseg.__all__)
def test_every_public_name_loads_and_is_documented(name: str) -> None:
    value = getattr(selfseg, name)
    if callable(value):
        assert value.__doc__, f"selfseg.{name} has no docstring"


def test_all_is_sorted_and_complete() -> None:
    assert list(selfseg.__all__) == sorted(set(selfseg.__all__))
    assert set(selfseg.__all__) <= set(dir(selfseg))
    with pytest.raises(AttributeError, match="nothing_such"):
        _ = selfseg.nothing_such


@pytest.mark.parametrize("name", selfseg.__all__)
def test_no_submodule_takes_the_place_of_a_public_name(name: str) -> None:
    """Importing `selfseg.x` sets the package's attribute `x` to the module, whatever it was before."""
    first = getattr(selfseg, name)
    module = getattr(first, "__module__", None)
    if isinstance(module, str):
        importlib.import_module(module)
    assert not isinstance(getattr(selfseg, name), ModuleType)


@pytest.mark.parametrize(
    ("module", "heavy"),
    [
        ("selfseg", {"torch", "cv2", "matplotlib", "timm", "huggingface_hub"}),
        ("selfseg.cli", {"torch", "cv2", "matplotlib", "timm", "huggingface_hub"}),
        ("selfseg.data.reading.listing", {"torch", "matplotlib", "timm"}),  # what only reads images
    ],
)
def test_importing_is_light(module: str, heavy: set[str]) -> None:
    code = f"import sys, {module}; sys.exit(', '.join({heavy} & set(sys.modules)) or None)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.strip() == ""
    assert done.returncode == 0
