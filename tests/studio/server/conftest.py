"""A small studio of drawn images, and browsers that know its token and that don't."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from conftest import draw_scene
from selfseg.studio.server.app import create_app
from studio.server.drawn import DrawnStudio

TOKEN = "a-token-for-tests"
ORIGIN = "http://127.0.0.1:8760"


@pytest.fixture(scope="session")
def scenes() -> DrawnStudio:
    """What is drawn once; tests take `studio`."""
    images = [(f"scene{seed}.jpg", draw_scene(seed, 60, 45)[0]) for seed in range(3)]
    return DrawnStudio(images, Path("nowhere"), ks=(3, 5), spacing=9)


@pytest.fixture
def studio(scenes: DrawnStudio, tmp_path: Path) -> DrawnStudio:
    return scenes.anew(tmp_path / "out")


@pytest.fixture
def browser(studio: DrawnStudio) -> Callable[..., TestClient]:
    """Makes a browser that has not opened the address with the token."""
    app = create_app(studio, TOKEN)

    def make(**options: object) -> TestClient:
        return TestClient(app, base_url=ORIGIN, headers={"origin": ORIGIN}, **options)  # type: ignore[arg-type]

    return make


@pytest.fixture
def page(browser: Callable[..., TestClient]) -> Iterator[TestClient]:
    """The browser of the person."""
    client = browser()
    assert client.get(f"/?token={TOKEN}").status_code == 200
    yield client
    client.close()
