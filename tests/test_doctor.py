"""The doctor answers for every part, and a broken part is a row of its report."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from bregma import doctor
from bregma.doctor import Check, DoctorReport, run_doctor


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> DoctorReport:
    return run_doctor(tmp_path_factory.mktemp("work"))


def by_name(report: DoctorReport) -> dict[str, Check]:
    return {check.name: check for check in report.checks}


def test_this_environment_can_work(report: DoctorReport) -> None:
    assert report.exit_code == 0
    assert [check for check in report.checks if check.status == "fail"] == []


def test_every_fault_names_its_mend(report: DoctorReport) -> None:
    assert [check.name for check in report.checks if check.status != "ok" and not check.fix] == []


def test_declared_dependencies_decode_every_compression(report: DoctorReport) -> None:
    """The packages in pyproject.toml must cover all of these; HTJ2K for one needs pylibjpeg beside its plug-in."""
    found = {check.name.removeprefix("DICOM "): check.status for check in report.checks if "DICOM" in check.name}
    assert found == dict.fromkeys(doctor.COMPRESSIONS, "ok")


def test_json_round_trip(report: DoctorReport) -> None:
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["status"] == report.status
    assert [Check(**row) for row in data["checks"]] == list(report.checks)


@pytest.mark.parametrize(
    ("statuses", "worst", "code"),
    [(("ok", "ok"), "ok", 0), (("ok", "warn"), "warn", 0), (("fail", "warn"), "fail", 1), ((), "ok", 0)],
)
def test_the_worst_check_decides(statuses: tuple[doctor.Status, ...], worst: str, code: int) -> None:
    report = DoctorReport(tuple(Check("part", status, "") for status in statuses))
    assert (report.status, report.exit_code) == (worst, code)


def test_a_folder_that_is_not_there_fails_with_a_mend(tmp_path: Path) -> None:
    found = by_name(run_doctor(tmp_path / "nowhere"))
    assert found["disk"].status == found["writing"].status == "fail"
    assert found["writing"].fix == "go to a folder in which you may write"


def test_a_missing_decoder_warns_and_names_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bregma.io.dicom_decode.PLUGINS", ())
    check = doctor._compression("JPEG-LS")
    assert (check.status, check.fix) == ("warn", "pip install pyjpegls")


def test_a_package_that_is_not_there_is_a_failed_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    check = doctor._guarded("torch", doctor._torch, "pip install torch")
    assert (check.status, check.fix) == ("fail", "pip install torch")
    assert "torch" in check.found


def test_a_missing_browser_warns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert doctor._browser().status == "warn"


def test_an_old_python_fails() -> None:
    assert doctor._python((3, 10, 4)) == Check(
        "Python", "fail", "3.10.4", "install Python 3.11 or newer and make a new environment with it"
    )
    assert doctor._python((3, 11, 0)).status == "ok"


@pytest.mark.parametrize(("total_gib", "status"), [(2, "warn"), (8, "ok")])
def test_little_memory_warns(monkeypatch: pytest.MonkeyPatch, total_gib: int, status: str) -> None:
    monkeypatch.setattr(doctor, "_memory_bytes", lambda: total_gib * 2**30)
    assert doctor._memory().status == status
    assert doctor._memory().found == f"{total_gib}.0 GiB"
