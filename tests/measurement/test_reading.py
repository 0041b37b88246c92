"""Quantities read off published equations and charts, against tables that others printed from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from bregma.curves import Chart, Curve, Formula
from bregma.errors import SchemaError
from bregma.geometry import Frame
from bregma.measurement import check_measurements, measure
from bregma.measurement.reading import centile, evaluate, read_off, standard_error
from bregma.schema import LandmarkSchema, load_schema, schema_from_dict
from bregma.types import Measurement

FETAL = load_schema("fetal_head")
MM = Frame((600, 600), (1.0, 1.0), "user")

# Hologic, SuperSonic MACH, Obstetrical References PM.LAB.175-A (2020), "GA by HC - Hadlock1984": cm, weeks.
HADLOCK_HC = [(6.8, 12.7263), (15.1, 18.1469), (22.4, 24.4278), (30.1, 33.3953), (36.0, 42.3968)]
# 3rd, 50th and 97th centile in mm by weeks as INTERGROWTH-21st prints them, to 0.1 mm (grow_fetal-ct_*_table, 2014).
PRINTED = {
    "hc": {14: (87.4, 97.9, 108.4), 22: (181.4, 196.3, 211.2), 30: (261.0, 278.4, 295.8), 40: (309.6, 333.9, 358.3)},
    "bpd": {14: (26.3, 29.6, 32.9), 22: (50.3, 55.0, 59.6), 30: (73.1, 78.9, 84.7), 40: (87.5, 94.9, 102.3)},
    "ofd": {14: (30.1, 33.8, 37.4), 22: (63.5, 69.2, 74.9), 30: (90.7, 98.0, 105.3), 40: (104.1, 115.8, 127.4)},
}


def head(ofd: float, bpd: float) -> np.ndarray:
    """Return the four ends of two diameters about one middle, in mm."""
    return np.array([[200 - ofd / 2, 200], [200 + ofd / 2, 200], [200, 200 - bpd / 2], [200, 200 + bpd / 2]])


def measured(points: np.ndarray, frame: Frame = MM, **settings: Any) -> dict[str, Measurement]:
    return {result.name: result for result in measure(FETAL, points, frame, **settings)}


class TestEquations:
    def test_powers_and_logarithms(self) -> None:
        curve = Curve(terms=((3.0, 0, 0), (2.0, 2, 1)))
        np.testing.assert_allclose(evaluate(curve, [1.0, math.e]), [3.0, 3 + 2 * math.e**2], rtol=1e-12)

    def test_the_sum_may_be_a_logarithm(self) -> None:
        assert float(evaluate(Curve(terms=((2.0, 1, 0),), log=True), 1.5)) == pytest.approx(math.exp(3.0))

    def test_nothing_is_read_off_a_length_of_nothing(self) -> None:
        assert np.isnan(evaluate(Curve(terms=((1.0, 0, 0),)), [0.0, -1.0])).all()

    @pytest.mark.parametrize(("hc_cm", "weeks"), HADLOCK_HC)
    def test_hadlock_as_a_manufacturer_tabulates_it(self, hc_cm: float, weeks: float) -> None:
        assert float(read_off(FETAL.formula("hadlock_1984_hc"), 10 * hc_cm, "wk")) == pytest.approx(weeks, abs=6e-4)

    def test_days_and_weeks(self) -> None:
        formula = FETAL.formula("intergrowth_2016_hc")
        assert float(read_off(formula, 180.0, "d")) == pytest.approx(7 * float(read_off(formula, 180.0, "wk")))

    @pytest.mark.parametrize(("weeks", "half_of_2sd"), [(17.9, 1.19), (18.0, 1.48), (25, 2.06), (35, 2.98), (40, 3.2)])
    def test_standard_error_by_the_result(self, weeks: float, half_of_2sd: float) -> None:
        found = standard_error(FETAL.formula("hadlock_1984_hc"), weeks, "wk")
        assert found is not None
        assert float(found) == pytest.approx(half_of_2sd / 2)
        in_days = standard_error(FETAL.formula("hadlock_1984_hc"), 7 * weeks, "d")
        assert in_days is not None
        assert float(in_days) == pytest.approx(7 * half_of_2sd / 2)

    @pytest.mark.parametrize(
        ("name", "weeks", "printed"),
        [(name, week, row) for name, rows in PRINTED.items() for week, row in rows.items()],
    )
    def test_intergrowth_as_printed(self, name: str, weeks: int, printed: tuple[float, float, float]) -> None:
        chart = FETAL.chart(f"intergrowth_2014_{name}")
        for length, percent in zip(printed, (3.0, 50.0, 97.0)):
            low, high = centile(chart, [length - 0.051, length + 0.051], weeks)
            assert low < percent < high


class TestGestationalAge:
    def test_equations_of_three_papers_agree_about_one_head(self) -> None:
        # Median HC, BPD and OFD of INTERGROWTH-21st at 22 weeks (196.3, 55.0 and 69.2 mm).
        found = measured(head(69.2, 55.0))
        for name in ("ga_hc_hadlock", "ga_hc_intergrowth", "ga_bpd_hadlock"):
            assert found[name].value == pytest.approx(22.0, abs=0.35), name

    def test_the_standard_error_and_the_convention_are_told(self) -> None:
        result = measured(head(69.2, 55.0))["ga_hc_hadlock"]
        assert (result.standard_error, result.convention, result.unit) == (0.74, "outer to outer", "wk")
        assert measured(head(69.2, 55.0))["hc"].standard_error is None

    def test_the_interval_holds_the_standard_error(self) -> None:
        still = np.zeros((4, 2, 2))
        result = measured(head(69.2, 55.0), cov=still, calibrated=True, draws=20_000)["ga_hc_hadlock"]
        assert result.value is not None
        assert result.interval is not None
        # Nothing but the equation's error is left: 1.96 of it on either side.
        low, high = result.interval
        assert (high - low) / 2 == pytest.approx(1.96 * 0.74, rel=0.03)
        assert (high + low) / 2 == pytest.approx(result.value, abs=0.03)

    def test_without_a_published_error_there_is_no_interval(self) -> None:
        found = measured(head(69.2, 55.0), cov=np.tile(np.eye(2), (4, 1, 1)), calibrated=True)
        assert found["bpd"].interval is not None
        assert (found["ga_bpd_hadlock"].interval, found["ga_bpd_hadlock"].status) == (None, "ok")

    @pytest.mark.parametrize(("ofd", "bpd", "word"), [(20.0, 16.0, "below 14"), (150.0, 120.0, "above 42")])
    def test_beyond_the_range_there_is_a_reason_and_no_number(self, ofd: float, bpd: float, word: str) -> None:
        result = measured(head(ofd, bpd), cov=np.tile(np.eye(2), (4, 1, 1)))["ga_hc_hadlock"]
        assert (result.value, result.interval, result.standard_error) == (None, None, None)
        assert result.status == "not_applicable"
        assert "14 to 42 wk" in result.reason
        assert word in result.reason

    def test_pixels_are_not_read(self) -> None:
        result = measured(head(69.2, 55.0), Frame((600, 600)))["ga_hc_hadlock"]
        assert (result.value, result.status, result.unit) == (None, "no_spacing", "wk")

    def test_a_diameter_of_no_length_gives_a_reason(self) -> None:
        found = measured(head(69.2, 0.0), cov=np.tile(np.eye(2), (4, 1, 1)), given={"gestational_age_wk": 22.0})
        for name in ("bpd", "hc", "cephalic_index", "ga_hc_hadlock", "ga_bpd_hadlock", "hc_centile", "bpd_centile"):
            assert (found[name].value, found[name].status) == (None, "refer"), name
            assert "coincide" in found[name].reason
        assert found["ofd"].value == pytest.approx(69.2)

    def test_a_missing_end_is_named(self) -> None:
        result = measured(head(69.2, 55.0), present=[True, True, True, False])["ga_bpd_hadlock"]
        assert (result.value, result.status) == (None, "missing_landmark")
        assert "bpd_2" in result.reason


class TestCentiles:
    def test_the_median_is_fifty(self) -> None:
        chart = FETAL.chart("intergrowth_2014_bpd")
        bpd = float(evaluate(chart.mean, 24.0))
        result = measured(head(80.0, bpd), given={"gestational_age_wk": 24.0})["bpd_centile"]
        assert (result.value, result.unit) == (pytest.approx(50.0), "%")

    def test_without_a_gestational_age_there_is_none(self) -> None:
        result = measured(head(69.2, 55.0))["hc_centile"]
        assert (result.value, result.status) == (None, "not_applicable")
        assert "gestational_age_wk" in result.reason

    @pytest.mark.parametrize("weeks", [13.9, 40.1])
    def test_beyond_the_chart_there_is_a_reason(self, weeks: float) -> None:
        result = measured(head(69.2, 55.0), given={"gestational_age_wk": weeks})["hc_centile"]
        assert (result.value, result.status) == (None, "not_applicable")
        assert f"{weeks}" in result.reason
        assert "14 to 40" in result.reason


def toy(**more: Any) -> LandmarkSchema:
    curve = {"terms": [[1, 1, 0]]}
    span = {"low": 1, "high": 9}
    data = {
        "name": "toy",
        "title": "toy",
        "landmarks": [{"name": name, "label": name} for name in "abcd"],
        "formulas": [{"name": "age", "curve": curve, "unit": "wk", "valid": span, "source": "s", "convention": "c"}],
        "charts": [{"name": "size", "by": "age", "valid": span, "mean": curve, "sd": curve, "source": "s"}],
        "measurements": [
            {"name": "m", "label": "m", "primitive": "distance", "points": {"a": "a", "b": "b"}, "unit": "wk"} | more
        ],
    }
    return schema_from_dict(data, where="toy.yaml")


class TestDeclarations:
    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"formula": "agee"}, "uses the formula 'agee', which is not declared"),
            ({"chart": "sizes"}, "uses the chart 'sizes', which is not declared"),
            ({"formula": "age", "chart": "size", "convention": "c"}, "a formula and a chart"),
            ({"formula": "age"}, "needs 'c'"),
            ({"formula": "age", "convention": "outer to inner"}, "'outer to inner'"),
        ],
    )
    def test_faults_are_named(self, more: dict[str, Any], words: str) -> None:
        with pytest.raises(SchemaError, match="measurement 'm'") as error:
            toy(**more)
        assert words in str(error.value)

    @pytest.mark.parametrize(
        ("more", "words"),
        [
            ({"formula": "age", "convention": "c", "unit": "mm"}, "a formula gives a time"),
            ({"chart": "size", "unit": "wk"}, "a chart gives a centile"),
            ({"unit": "wk"}, "gives a length"),
            (
                {"primitive": "line_angle", "points": dict(zip("abcd", "abcd")), "formula": "age", "convention": "c"},
                "a formula reads off lengths",
            ),
        ],
    )
    def test_units_and_kinds_are_checked(self, more: dict[str, Any], words: str) -> None:
        with pytest.raises(SchemaError, match=words):
            check_measurements(toy(**more))

    def test_names_are_looked_up(self) -> None:
        with pytest.raises(SchemaError, match="has no formula 'x'"):
            FETAL.formula("x")
        with pytest.raises(SchemaError, match="has no chart 'x'"):
            FETAL.chart("x")

    @pytest.mark.parametrize(
        ("field", "value"),
        [("valid", {"low": 3, "high": 3}), ("standard_error", {"edges": [2, 1], "values": [1, 1, 1]})],
    )
    def test_a_formula_that_contradicts_itself_is_refused(self, field: str, value: Any) -> None:
        data = FETAL.formula("hadlock_1984_hc").to_dict() | {field: value}
        with pytest.raises(ValueError, match=field):
            Formula.model_validate(data)

    def test_what_is_declared_survives_a_round_trip(self) -> None:
        for entry in (*FETAL.formulas, *FETAL.charts):
            assert type(entry).model_validate(entry.to_dict()) == entry
        assert isinstance(FETAL.charts[0], Chart)
