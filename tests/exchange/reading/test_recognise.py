"""Each format's own files are recognised in test_round_trip and beside its reader."""

from pathlib import Path

import pytest

from selfseg.errors import ConfigError, DataError
from selfseg.exchange import read
from selfseg.exchange.reading.recognise import recognise

COCO = '{"images": [], "annotations": [], "categories": []}'
TASKS = '[{"data": {"image": "a.jpg"}}]'


@pytest.mark.parametrize(
    ("name", "text", "format"),
    [
        ("a.json", COCO, "coco"),
        ("a.json", TASKS, "label-studio"),
        ("a.json", '{"items": [], "categories": {"label": {}}}', "datumaro"),
        ("a.json", '[{"type": "Feature"}]', "geojson"),
        ("a.geojson", "{}", "geojson"),
        ("annotations.xml", "<a/>", "cvat"),
        ("data.yaml", "names: [a]", "yolo"),
    ],
)
def test_a_single_file(name: str, text: str, format: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    assert recognise(tmp_path / name) == recognise(tmp_path) == format


def test_nothing_and_too_much(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match=r"no labels in a format that can be read \(nothing\); the formats are palette, coco"
    ):
        recognise(tmp_path)
    (tmp_path / "a.docx").write_text("?")
    with pytest.raises(DataError, match=r"\(a\.docx\)"):
        recognise(tmp_path)
    (tmp_path / "a.json").write_text(COCO)
    (tmp_path / "b.json").write_text(TASKS)
    with pytest.raises(DataError, match=r"several formats \(coco, label-studio\); say which"):
        read("auto", tmp_path)
    with pytest.raises(ConfigError, match="no format 'pdf'"):
        read("pdf", tmp_path)
