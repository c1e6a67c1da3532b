from pathlib import Path

import pytest

from named_runs import make_run


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """With five clusters."""
    return make_run(tmp_path / "run")
