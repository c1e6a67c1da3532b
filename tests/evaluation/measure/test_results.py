import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from selfseg.data.labelled.catalog import open_labelled
from selfseg.drawing.result_charts import compare_results
from selfseg.errors import LabelError
from selfseg.evaluation.measure.reading import Tally
from selfseg.evaluation.measure.results import (
    Question,
    format_table,
    markdown_table,
    result_of,
    write_table,
)
from selfseg.types import EvalResult


def result(what="embedder", protocol="linear", miou=0.5, seeds=(0,), **others):
    made = EvalResult(
        protocol, 1, what, "street", "val", "train", {"miou": miou, "miou_std": 0.0125, "accuracy": 0.75},
        ("sky", "a|b <c>"), (2 * miou, None), ((5, 1), (0, 0)), "none", None, "native", "none", False, seeds, {},
    )  # fmt: skip
    return replace(made, **others)


CONSTANT = result("most frequent class", "constant", 0.1, ())


def test_a_markdown_table_has_means_deviations_and_classes():
    text = markdown_table(
        [
            result(seeds=(0, 1, 2)),
            result(protocol="clusters", miou=0.25, k=2, matching="hungarian"),
            result("colour", miou=0.2),
            CONSTANT,
        ]
    )
    assert text == (
        "## street val, 2 classes\n"
        "\n"
        "**Note:** not one pixel of street val is a\\|b \\<c>\n"
        "\n"
        "mIoU ± standard deviation over seeds / pixel accuracy, fractions.\n"
        "\n"
        "| embedding | linear | clusters k=2, hungarian |\n"
        "|---|---:|---:|\n"
        "| embedder | 0.500 ± 0.013 / 0.750 | 0.250 / 0.750 |\n"
        "| colour | 0.200 / 0.750 |  |\n"
        "| most frequent class | 0.100 / 0.750 | 0.100 / 0.750 |\n"
        "\n"
        "IoU of each class, embedder:\n"
        "\n"
        "| class | linear | clusters k=2, hungarian |\n"
        "|---|---:|---:|\n"
        "| sky | 1.000 | 0.500 |\n"
        "| a\\|b \\<c> | - | - |\n"
        "\n"
        "How it was measured:\n"
        "\n"
        "- linear: fitted on train, measured on val at native size, crop none, no CRF, 3 seeds; ; protocol version 1, "
        "selfseg .\n"
        "- clusters k=2, hungarian: fitted on train, measured on val at native size, crop none, no CRF, 1 seed; ; "
        "protocol version 1, selfseg .\n"
        "- linear: fitted on train, measured on val at native size, crop none, no CRF, 1 seed; ; protocol version 1, "
        "selfseg .\n"
    )


def test_other_data_have_a_table_of_their_own_and_other_embedders_their_classes():
    text = markdown_table([result(dataset="a"), result("ours", dataset="b"), result("theirs", dataset="b"), CONSTANT])
    titles = ["## a val, 2 classes", "## b val, 2 classes", "## street val, 2 classes"]
    assert [line for line in text.splitlines() if line.startswith("#")] == titles
    assert "IoU of each class, linear:\n\n| class | ours | theirs |" in text
    assert text.rstrip().endswith("| most frequent class | 0.100 / 0.750 |")


def test_a_constant_stands_in_the_columns_of_its_crop_alone(tmp_path):
    cropped = replace(CONSTANT, crop="320", metrics={**CONSTANT.metrics, "miou": 0.3})
    results = [result(), result(crop="320", resolution=320), CONSTANT, cropped]
    assert "| most frequent class | 0.100 / 0.750 | 0.300 / 0.750 |" in markdown_table(results)
    table = format_table(results)
    assert [list(column.cells)[1] for column in table.columns[1:]] == ["0.100 / 0.750", "0.300 / 0.750"]
    (tmp_path / "results").mkdir()
    for index, one in enumerate(results):
        (tmp_path / "results" / f"{index}.json").write_text(json.dumps(one.to_dict()))
    (page,) = compare_results(tmp_path)
    assert page.columns == ("linear", "linear, crop 320")
    assert {what: [cell.miou for cell in cells] for what, _, cells in page.rows}["most frequent class"] == [0.1, 0.3]
    # The file holds all that lies in the folder, and is no result itself.
    path = write_table(tmp_path / "results")
    assert path.read_text() == markdown_table(results)
    for name, other in (("detection", '{"protocol": "detection"}'), ("list", "[]"), ("cut", '{"prot')):
        (tmp_path / "results" / f"{name}.json").write_text(other)
    assert write_table(tmp_path / "results").read_text() == path.read_text()


def test_a_result_says_first_what_makes_it_mean_little() -> None:
    assert replace(result(), confusion=((1, 0), (0, 1)), counts={"pixels": 60, "void": 40}).doubt == ""
    mostly = replace(result(), confusion=((1, 0), (0, 1)), counts={"pixels": 40, "void": 60})
    assert mostly.doubt == "60% of its pixels are void and count for nothing"
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(format_table([result(), mostly]))
    said = " ".join(console.export_text().split())
    assert said.startswith("note: not one pixel of street val is a|b <c> note: 60% of its pixels")


def test_names_make_no_links_and_no_code_of_a_table() -> None:
    text = markdown_table([replace(result(), class_names=("[x](javascript:y)", "![a](b)`c`"))])
    assert r"\[x\](javascript:y)" in text
    assert r"!\[a\](b)\`c\`" in text


def test_a_split_whose_labels_are_all_void_has_no_result(labelled: Path) -> None:
    question = Question("linear", 1, "embedder", "train", "native")
    with pytest.raises(LabelError, match="no pixel of the 2 labels of the split 'val'"):
        result_of(question, [np.zeros((2, 2), np.int64)], Tally(2, 0, 100), open_labelled(labelled, "val"), {})
