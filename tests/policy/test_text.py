"""What must not stand in the project's files."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src"
MOST_LINES = 450  # "about 400"
UNPICKLES = SOURCE / "selfseg" / "models" / "published" / "files.py"  # weights from elsewhere, tensors only

BETWEEN_PROCESSES = SOURCE / "selfseg" / "workers" / "pipes.py"  # of one call; bytes in memory, never a file

MODULES = sorted(SOURCE.rglob("*.py"))
by_path = pytest.mark.parametrize("file", MODULES, ids=lambda file: file.relative_to(SOURCE).as_posix())


def calls(tree: ast.AST) -> list[tuple[str, ast.Call]]:
    """Every call as ("torch.load", node)."""
    return [(ast.unparse(node.func), node) for node in ast.walk(tree) if isinstance(node, ast.Call)]


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listing.stdout.split("\0") if name and (ROOT / name).is_file()]


@by_path
def test_the_package_neither_prints_nor_unpickles(file: Path) -> None:
    tree = ast.parse(file.read_text("utf-8"))
    for name, node in calls(tree):
        where = f"line {node.lineno}: {name}"
        arguments = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert name != "print", f"{where}: use the console of cli or training.log"
        assert name not in ("eval", "exec"), where
        if name in ("torch.load", "torch.hub.load"):
            assert file == UNPICKLES, f"{where}: weights are safetensors; only {UNPICKLES.name} reads others"
            assert arguments.get("weights_only") == "True", where
        if name in ("np.load", "numpy.load"):
            assert arguments.get("allow_pickle") == "False", where
        assert name != "yaml.load", f"{where}: use yaml.safe_load"
    imports = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imports |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imports.add((node.module or "").split(".")[0])
    pickling = imports & {"pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    if file == BETWEEN_PROCESSES:
        assert pickling == {"pickle"}
        assert {name for name, _ in calls(tree) if "pickle" in name} == {"pickle.dumps", "pickle.loads"}
        assert not [name for name, _ in calls(tree) if name.endswith("open")]
    else:
        assert not pickling


@by_path
def test_files_are_about_one_thing(file: Path) -> None:
    assert len(file.read_text("utf-8").splitlines()) <= MOST_LINES


def test_no_addresses_of_package_indexes_and_no_machines_paths() -> None:
    # Built from pieces, so that this file does not hold what it forbids.
    paths = "|".join(("wo" + "rk", "ro" + "ot", "ho" + "me/[a-z]", "Us" + "ers/[a-z]"))
    forbidden = re.compile(
        rf"(?<![\w.~$}}\]])/(?:{paths})/|--(?:extra-)?index-" + r"url|pythonhosted\.org|/simple/|--hash="
    )
    found = []
    for file in tracked_files():
        try:
            text = file.read_text("utf-8")
        except UnicodeDecodeError:
            continue
        for number, line in enumerate(text.splitlines(), 1):
            if match := forbidden.search(line):
                found.append(f"{file.relative_to(ROOT)}:{number}: {match[0]}")
    assert not [entry for entry in found if not entry.startswith("tests/policy/test_text.py")]


def test_constraints_are_plain_names_and_versions() -> None:
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][\w.]*( ; .+)?", line), line
        assert not line.startswith(("nvidia-", "cuda-")), line
