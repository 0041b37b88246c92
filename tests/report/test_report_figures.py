"""Figures draw what they are given, without touching matplotlib's global state."""

from __future__ import annotations

import io
import sys
import xml.etree.ElementTree as ET
from pathlib import Path

import matplotlib
import numpy as np
import pytest
from PIL import Image

from bregma.errors import ImageError, InputError, MissingPartError
from bregma.report import contact_sheet, save_png, screenshot
from bregma.report import figures as draw
from bregma.report.words import (
    flat,
    headline_metrics,
    main_metrics,
    metric_words,
    number,
    p_value,
    short_labels,
    unit_suffix,
)
from bregma.results import Estimate, Evaluation
from bregma.schema import schema_from_dict

HISTORY = [{"epoch": 1, "train_loss": 2.0, "val_mre_px": None}, {"epoch": 2, "train_loss": 1.0, "val_mre_px": 4.0}]


def all_figures(evaluation: Evaluation, **kind: str) -> list[bytes]:
    errors = np.array([1.0, 2.0, np.nan, 50.0])
    return [
        draw.learning_curves(HISTORY, **kind),
        draw.learning_curves([{"epoch": 1}], **kind),
        draw.cumulative_errors({"model": errors, "reader": errors / 2}, "mm", thresholds=(2.0,), **kind),
        draw.error_histogram(errors, "mm", **kind),
        draw.error_histogram(np.array([np.nan]), "mm", **kind),
        draw.landmark_errors(evaluation.landmarks, **kind),
        draw.landmark_errors(evaluation.landmarks * 12, **kind),
        draw.bland_altman([1.0, 2.5, 3.0], [1.5, 2.0, 3.5], "deg", "Angle", **kind),
        draw.bland_altman([1.0], [1.5], "mm", "Width", agreement=evaluation.agreements[0], **kind),
        draw.bland_altman([2.0, 2.0], [2.0, 2.0], "mm", "Perfect and constant", **kind),
        draw.cumulative_errors({"perfect": np.zeros(4)}, "mm", **kind),
        draw.confusion([[3, 1], [0, 0]], ["slim", "wide"], "Width", **kind),
    ]


def test_every_figure_is_svg_or_png(evaluation: Evaluation) -> None:
    before = dict(matplotlib.rcParams)
    assert all(ET.fromstring(data).tag.endswith("svg") for data in all_figures(evaluation))
    png = draw.error_histogram([1.0, 2.0], "mm", format="png")
    assert Image.open(io.BytesIO(png)).format == "PNG"
    assert dict(matplotlib.rcParams) == before


def test_learning_curves_mark_the_best_epoch_of_loss_and_of_error() -> None:
    losses, errors = [3.0, 1.0, 2.0, 2.5, 2.0], [9.0, 8.0, 7.0, 5.0, 6.0]
    rows = [
        {"epoch": float(10 * i), "val_loss": loss, "val_mre_px": error}
        for i, (loss, error) in enumerate(zip(losses, errors, strict=True), 1)
    ]
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        text = draw.learning_curves(rows).decode()
    assert [text.count(f"least at epoch {epoch}") for epoch in (20, 40)] == [1, 1]


def test_figures_do_not_need_pyplot() -> None:
    assert "pyplot" not in Path(draw.__file__).read_text(encoding="utf-8").replace("without pyplot", "")
    assert "bregma.report.figures" in sys.modules


def test_a_figure_is_the_same_each_time() -> None:
    assert draw.error_histogram([1.0, 2.0], "mm") == draw.error_histogram([1.0, 2.0], "mm")


def test_a_contact_sheet_keeps_proportions_and_order() -> None:
    red = np.zeros((100, 200, 3), np.uint8) + np.array([255, 0, 0], np.uint8)
    green = np.zeros((200, 100, 3), np.uint8) + np.array([0, 255, 0], np.uint8)
    sheet = contact_sheet([(red, "red"), (green, "green"), (red, "red again")], columns=2, cell=(100, 100), gap=10)
    is_red, is_green = sheet[..., 0] > 250, sheet[..., 1] > 250
    is_red &= sheet[..., 1] < 5
    is_green &= sheet[..., 0] < 5
    assert is_red.sum() == 2 * 100 * 50
    assert is_green.sum() == 50 * 100
    assert np.nonzero(is_green)[1].min() > np.nonzero(is_red)[1].max()


def test_a_contact_sheet_of_nothing_is_refused() -> None:
    with pytest.raises(ImageError, match="0 tiles"):
        contact_sheet([])
    with pytest.raises(ImageError, match=r"expected \(H, W, 3\), got \(4, 4\)"):
        contact_sheet([(np.zeros((4, 4), np.uint8), "grey")])


def test_a_picture_survives_png(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 255, (7, 9, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(save_png(tmp_path / "a" / "p.png", picture))), picture)


def test_a_missing_browser_is_said_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = tmp_path / "p.html"
    page.write_text("<p>hi</p>", encoding="utf-8")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPartError, match="install chromium"):
        screenshot(page, tmp_path / "p.png")
    with pytest.raises(InputError, match="no such file"):
        screenshot(tmp_path / "none.html", tmp_path / "p.png")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mre_mm", "Mean radial error (MRE)"),
        ("mre_sd_px", "Standard deviation of radial errors"),
        ("sdr_2.5mm", "Points within 2.5 mm (SDR)"),
        ("sdr_4px_at_256", "Points within 4 px (SDR), images at 256 px"),
        ("sdr_10mm_ref", "Points within 10 mm (SDR), mm by reference length"),
        ("median_mm_ref", "Median radial error, mm by reference length"),
        ("outliers_per_image_at_256", "Outliers per image, images at 256 px"),
        ("something_else", "something_else"),
    ],
)
def test_metrics_in_words(name: str, words: str) -> None:
    assert metric_words(name) == words


def test_the_first_unit_is_the_main_one() -> None:
    names = ["mre_mm", "sdr_2mm", "mre_px", "outliers_per_image", "mre_px_at_256", "nme", "ab_mae"]
    metrics = dict.fromkeys(names, Estimate(1.0, None, None, 1, "mm"))
    assert main_metrics(metrics) == ["mre_mm", "sdr_2mm", "outliers_per_image", "nme"]
    plain = {name: figure for name, figure in metrics.items() if name != "mre_px_at_256"}
    assert headline_metrics(plain) == ["mre_mm", "sdr_2mm", "outliers_per_image"]


def test_errors_at_a_size_that_was_asked_for_and_grades_come_on_top() -> None:
    names = ["mre_mm", "mre_px_at_256", "slip_worst_grade_accuracy", "slip_grade_accuracy", "outliers_per_image_at_256"]
    metrics = dict.fromkeys([*names, "cobb_smape"], Estimate(1.0, None, None, 1, "mm"))
    shown = ["mre_px_at_256", "outliers_per_image_at_256", "cobb_smape", "slip_grade_accuracy"]
    assert headline_metrics(metrics) == shown


def test_unknown_figures_come_as_they_are() -> None:
    metrics = {"nme": Estimate(1.0, None, None, 1, "mm")}
    assert headline_metrics({"x": metrics["nme"], "y": metrics["nme"]}) == ["x", "y"]


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.005, "mm", "1.00"),
        (97.25, "%", "97.2"),
        (0.417, "%", "0.42"),
        (3.0, "1", "3"),
        (0.8123, "1", "0.812"),
        (None, "mm", "–"),
        (1234.56, "px", "1234.6"),
    ],
)
def test_numbers_for_reading(value: float | None, unit: str, text: str) -> None:
    assert number(value, unit) == text


def test_short_labels_are_short_and_different() -> None:
    labels = {"S": "Sella (S), centre", "sup_ant": "Endplate, front", "sup_post": "Endplate, back", "long": "x" * 40}
    landmarks = [{"name": name, "label": label} for name, label in labels.items()]
    schema = schema_from_dict({"name": "x", "title": "X", "landmarks": landmarks}, where="test")
    assert short_labels(schema) == ("Sella (S)", "sup ant", "sup post", "long")


def test_small_words() -> None:
    assert (p_value(0.0004), p_value(0.0421), p_value(None)) == ("p < 0.001", "p = 0.042", "")
    assert (unit_suffix("deg"), unit_suffix("1"), unit_suffix("mm2")) == ("°", "", "\u00a0mm²")
    nested = {"a": {"b": 1.5, "c": [1, 2]}, "d": None, "e": True}
    assert flat(nested) == [("a.b", "1.5"), ("a.c", "1, 2"), ("d", "–"), ("e", "yes")]
    assert flat({"curve": [0.25, *range(98), 0.75]}) == [("curve", "100 values, 0.25 to 0.75")]
