"""Reports: well-formed, self-contained, safe, complete, and worst first."""

from __future__ import annotations

import base64
import io
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bregma.report import PredictedCase, write_comparison_html, write_prediction_report, write_report
from bregma.results import ComparisonRow, ComparisonTable, Estimate, Evaluation
from bregma.schema import LandmarkSchema
from bregma.types import Measurement

VOID = {"meta", "img", "br", "link", "input", "hr"}
SELF_CLOSED = {"circle", "path", "ellipse", "rect"}


class Page(HTMLParser):
    """Checks nesting and collects what a reader sees and what a browser would load."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.links: list[str] = []
        self.images: list[dict[str, str]] = []
        self.words: list[str] = []
        self.scripts = 0
        self.heads: list[dict[str, str]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        self.links += [values[name] for name in ("src", "href", "data", "action", "srcset") if name in values]
        if tag == "img":
            self.images.append(values)
        if tag == "th":
            self.heads.append(values)
        self.scripts += tag == "script"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in SELF_CLOSED | VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in {"style", "script"}:
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def read(path: Path) -> Page:
    return Page(path.read_text(encoding="utf-8"))


def full_report(path: Path, evaluation: Evaluation) -> Page:
    history = [{"epoch": i, "train_loss": 1.0 / (i + 1), "val_mre_px": 5.0 / (i + 1)} for i in range(5)]
    plan = {"batch": {"value": 8, "reason": "it fits <b>memory</b>"}}
    provenance = {"seed": 3, "versions": {"numpy": "2.0"}, "command": "bregma train x"}
    return read(write_report(path, evaluation, history=history, plan=plan, provenance=provenance, worst=2))


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory, evaluation: Evaluation) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    full_report(path, evaluation)
    return path


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return read(report)


def test_nothing_is_loaded_from_elsewhere(page: Page, report: Path) -> None:
    assert page.links
    assert all(link.startswith("data:") for link in page.links)
    text = report.read_text(encoding="utf-8")
    assert "default-src 'none'" in text
    assert "@import" not in text
    assert "url(" not in text


def test_every_picture_has_words_and_opens(page: Page) -> None:
    assert all(len(image["alt"]) > 10 for image in page.images)
    photos = [image for image in page.images if image["src"].startswith("data:image/jpeg")]
    # Four cases with their errors; the two worst and the best with what is measured.
    assert len(photos) == 7
    for image in photos:
        pixels = Image.open(io.BytesIO(base64.b64decode(image["src"].partition(",")[2])))
        assert pixels.size == (int(image["width"]), int(image["height"]))
    assert all(head.get("scope") in {"row", "col"} for head in page.heads)


def test_worst_cases_come_first(page: Page) -> None:
    places = [page.text.index(name) for name in ("1. case-0", "2. case-1", "best: case-3")]
    assert places == sorted(places)


@pytest.mark.parametrize(
    "shown",
    [
        "2.95 mm [1.51, 4.42]",  # MRE
        "51.2 % [40.1, 62.4]",  # SDR
        "5.91 px",  # MRE in px
        "1.77 mm [1.01, 2.53]",  # second observer
        "3.21 mm [2.11, 4.31]",  # first landmark
        "7.43 mm",  # third landmark, p95 without an interval
        "-1.47 mm [-2.51, -0.43]",  # bias
        "75.0 % [30.1, 95.4]",  # grades
        "mean error 5.62 mm (11.25 px), 3 outliers",  # 11.25 px of 0.5 mm = 5.625 mm
        "Points within 2 mm (SDR)",
        "Width a to b: mean absolute difference",
        "a_new_metric",
        "4 images of 4 subjects, 3 landmarks",
        "model net 1",
        "The intervals rest on 4 subjects.",
        "it fits <b>memory</b>",
        "versions.numpy",
        "Research use only; not a medical device",
    ],
)
def test_figures_are_shown_as_they_were_given(page: Page, shown: str) -> None:
    assert shown in re.sub(r"\s+(?=%|mm|px)", " ", page.text.replace("\u00a0", " ")).replace("  ", " ")


def test_hostile_names_are_shown_and_not_run(tmp_path: Path, hostile: Evaluation) -> None:
    page = full_report(tmp_path / "report.html", hostile)
    assert page.scripts == 1
    for end in "snor":
        assert f'"><script>alert(1)</script>{end}' in page.text


def test_an_image_that_cannot_be_read_leaves_its_place_with_the_reason(tmp_path: Path, broken: Evaluation) -> None:
    page = full_report(tmp_path / "report.html", broken)
    assert "No picture: broken.png: is cut short" in page.text
    assert "2. case-1" in page.text
    assert sum(image["src"].startswith("data:image/jpeg") for image in page.images) == 5


def test_an_image_of_another_size_than_was_scored_is_not_drawn(tmp_path: Path, evaluation: Evaluation) -> None:
    first = evaluation.cases[0]
    image = replace(first.case.image, array=np.zeros((10, 10), np.uint8))  # type: ignore[type-var]
    other = replace(evaluation, cases=(replace(first, case=replace(first.case, image=image)), *evaluation.cases[1:]))
    assert "expected 60 rows x 80 columns, got (10, 10)" in full_report(tmp_path / "report.html", other).text


def test_cases_without_a_measurement_are_listed_with_the_reason(tmp_path: Path, evaluation: Evaluation) -> None:
    lost = Measurement("ab", "Width a to b", None, "mm", status="missing_landmark", reason="b is not on the image")
    cases = [replace(result, measured=(lost,)) if i in {0, 2} else result for i, result in enumerate(evaluation.cases)]
    text = full_report(tmp_path / "report.html", replace(evaluation, cases=tuple(cases))).text
    assert "missing landmark: b is not on the image 2 case-0, case-2" in text


def test_an_empty_evaluation_still_makes_a_page(tmp_path: Path, evaluation: Evaluation) -> None:
    empty = replace(evaluation, cases=(), metrics={}, landmarks=(), agreements=(), human={})
    page = read(write_report(tmp_path / "report.html", empty))
    assert "No case was scored." in page.text


def test_errors_fall_back_to_pixels_without_spacing(tmp_path: Path, evaluation: Evaluation) -> None:
    cases = tuple(replace(result, errors_mm=None) for result in evaluation.cases)
    text = full_report(tmp_path / "report.html", replace(evaluation, cases=cases)).text
    assert "mean error 11.25 px, 3 outliers" in text
    assert "worst: Corner a, 11.25 px" in text


def test_the_same_evaluation_gives_the_same_page(tmp_path: Path, evaluation: Evaluation) -> None:
    one = replace(evaluation, cases=evaluation.cases[:1], landmarks=())
    first, second = (write_report(tmp_path / name, one) for name in ("1.html", "2.html"))
    assert first.read_bytes() == second.read_bytes()


def test_many_large_images_stay_within_six_megabytes(tmp_path: Path, evaluation: Evaluation) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80), dtype=np.uint8)
    evaluation = replace(evaluation, landmarks=(), agreements=())
    first = evaluation.cases[0]
    image = replace(first.case.image, array=noise)  # type: ignore[type-var]
    cases = tuple(replace(first, case=replace(first.case, id=f"case-{i}", image=image)) for i in range(24))
    path = write_report(tmp_path / "report.html", replace(evaluation, cases=cases), worst=18)
    assert path.stat().st_size < 6_000_000


def test_predictions_without_labels(tmp_path: Path, schema: LandmarkSchema, evaluation: Evaluation) -> None:
    measured = (
        Measurement(
            "ab",
            "Width a to b",
            26.125,
            "mm",
            interval=(24.5, 27.75),
            interval_level=0.95,
            grade="slim",
            grade_probabilities={"slim": 0.9, "wide": 0.1},
            uses=("a", "b"),
        ),
        Measurement("ab", "Width a to b", None, "mm", status="refer", reason="<i>too</i> uncertain"),
    )
    items = [PredictedCase(r.case.image, r.prediction, measured) for r in evaluation.cases]
    page = read(write_prediction_report(tmp_path / "p.html", schema, items, most=3, notes=("Mind the gap.",)))
    text = page.text.replace("\u00a0", " ")
    assert "26.12 mm [24.50, 27.75]" in re.sub(r"\s+", " ", text)
    assert "slim 90.0 %, wide 10.0 %" in text
    assert "refer : <i>too</i> uncertain" in text
    assert "Only the first 3 of 4 cases are shown." in text
    assert "Mind the gap." in text
    assert "80 x 60 pixels of 0.5 x 0.5 mm (user)" in text
    assert "case-3" not in text
    assert len(page.images) == 3


def test_runs_side_by_side(tmp_path: Path) -> None:
    row = ComparisonRow(
        "mre_mm",
        "mm",
        (Estimate(2.0, 1.5, 2.5, 40, "mm"), Estimate(1.625, 1.25, 2.0, 40, "mm")),
        (None, Estimate(-0.375, -0.5, -0.25, 40, "mm")),
        (None, 0.00005),
    )
    table = ComparisonTable("Runs", ("base", "<wide>"), (row,), 40, 38, "paired bootstrap", ("One case was left out.",))
    page = read(write_comparison_html(tmp_path / "c.html", table))
    text = re.sub(r"\s+", " ", page.text.replace("\u00a0", " "))
    assert "2 runs on the same 40 images of 38 subjects." in text
    assert "difference -0.38 mm [-0.50, -0.25] , p < 0.001" in text
    assert "<wide>" in text
    assert "One case was left out." in text
    assert not page.links


def test_doubtful_landmarks_are_named_with_the_reason(tmp_path: Path, evaluation: Evaluation) -> None:
    why = "9.3 standard deviations from where the other points say it is"
    first = evaluation.cases[0]
    flagged = replace(first, prediction=replace(first.prediction, flags=("", why, "")))
    page = write_report(tmp_path / "r.html", replace(evaluation, cases=(flagged, *evaluation.cases[1:])))
    text = page.read_text(encoding="utf-8")
    assert why in text
    assert "doubtful prediction" in text
    assert "doubtful prediction" not in write_report(tmp_path / "s.html", evaluation).read_text(encoding="utf-8")
    item = PredictedCase(first.case.image, flagged.prediction, first.measured)
    alone = write_prediction_report(tmp_path / "p.html", evaluation.schema, [item]).read_text(encoding="utf-8")
    assert why in alone
    assert "doubtful prediction" in alone
