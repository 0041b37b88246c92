"""Volumes from a table: NIfTI files and a DICOM series, read by orientation, trained 2.5-D, evaluated and predicted."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, ornt_transform
from pydicom.uid import MRImageStorage, generate_uid

from bregma.bundle import PredictConfig, load_bundle
from bregma.errors import ConfigError, LabelError
from bregma.phantoms import phantom_settings
from bregma.phantoms.lumbar_mri import make_volume
from bregma.prediction.predictor import Predictor
from bregma.types import Prediction, SlabSource
from bregma.workflows import DataOptions, phantom, predict, train
from bregma.workflows.loading import load_data, load_images
from dicom_files import write_dicom

SCHEMA = """
name: bone
title: Bone density from sagittal MRI
flip: keep
quantities:
  - {name: bmd, label: Bone mineral density, unit: mg/cm3}
"""
CODES = ("RAS", "LPS", "ASR", "PIR")
SIZES = (4.0, 1.0, 1.0)


def voxels(number: int) -> tuple[np.ndarray, float]:
    """Return a volume to the right, front and head, and a density that the slices beside the middle one tell alone."""
    rng = np.random.default_rng(number)
    density = float(rng.uniform(50, 200))
    array = rng.normal(60, 5, (7, 40, 48))
    array[2:5, 10:30, 12:36] += density
    array[3, 10:30, 12:36] = 160
    array[:, 2:8, 4:10] = 300
    return np.clip(array, 0, 2000).astype(np.int16), density


def write_nifti(path: Path, array: np.ndarray, codes: str) -> None:
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(codes))
    affine = np.diag([*SIZES, 1.0]) @ inv_ornt_aff(turn, array.shape)
    image = nib.Nifti1Image(apply_orientation(array, turn), affine)
    image.header.set_xyzt_units("mm")
    nib.save(image, path)


def write_series(folder: Path, array: np.ndarray) -> None:
    """Store sagittal slices, columns to the back and rows to the foot."""
    folder.mkdir()
    series = generate_uid()
    for k, slice_ in enumerate(array):
        write_dicom(
            folder / f"{k}.dcm",
            np.ascontiguousarray(slice_[::-1, ::-1].T).astype(np.uint16),
            SOPClassUID=MRImageStorage,
            SeriesInstanceUID=series,
            InstanceNumber=str(k),
            ImagePositionPatient=[-SIZES[0] * k, -(array.shape[1] - 1) * SIZES[1], (array.shape[2] - 1) * SIZES[2]],
            ImageOrientationPatient=[0, 1, 0, 0, 0, -1],
            PixelSpacing=[SIZES[2], SIZES[1]],
        )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("bone")
    rows = []
    for number in range(70):
        array, density = voxels(number)
        name = f"v{number}.nii.gz" if number else "series"
        if number:
            write_nifti(root / name, array, CODES[number % len(CODES)])
        else:
            write_series(root / name, array)
        rows.append({"image": name, "subject": f"s{number}", "bmd": f"{density:.3f}", "site": "a"})
    with (root / "table.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    (root / "table.columns.yaml").write_text("image: image\nsubject: subject\nplane: sagittal\ntargets: [bmd]\n")
    (root / "bone.yaml").write_text(SCHEMA)
    return root


def options(folder: Path) -> DataOptions:
    return DataOptions(schema=str(folder / "bone.yaml"))


def test_every_volume_is_the_same_body_however_it_is_stored(folder: Path) -> None:
    dataset = load_data(folder, options(folder))
    assert len(dataset) == 70
    assert not dataset.problems
    for case, number in zip(dataset, range(70), strict=True):
        array, density = voxels(number)
        assert case.targets["bmd"] == pytest.approx(density, abs=1e-3)
        assert case.frame.spacing == pytest.approx((1.0, 1.0))
        np.testing.assert_array_equal(case.image.load(), array[3, ::-1, ::-1].T)
        slab = case.image.load_slab(1)  # type: ignore[attr-defined]
        np.testing.assert_array_equal(slab, array[2:5, ::-1, ::-1].transpose(0, 2, 1))


def test_neighbouring_slices_are_learned_from_and_predicted_with(folder: Path, tmp_path: Path) -> None:
    result = train(
        folder,
        tmp_path / "run",
        options=options(folder),
        overrides=[
            "model.codec.name=scalar",
            "model.preprocess.size=[32,32]",
            "model.preprocess.slices=3",
            "model.preprocess.percentiles=[0.5,100]",
            "augment.rotation_deg=0",
            "augment.gamma=0",
            "augment.contrast=0",
            "augment.brightness=0",
            "train.batch_size=8",
            "train.epochs=25",
            "train.accelerator=cpu",
            "train.precision=32-true",
            "train.workers=0",
            "predict.accelerator=cpu",
            "evaluate.draws=100",
        ],
    )
    assert result.evaluation is not None
    # The middle slice alone says nothing.
    assert result.evaluation.metrics["bmd_r2"].value > 0.5
    assert load_bundle(result.run).config.preprocess.slices == 3
    dataset = load_data(folder, options(folder))
    cpu = PredictConfig(accelerator="cpu")
    series = predict([result.run], [folder / "series"], tmp_path / "series", plane="sagittal", config=cpu)
    assert [one.case_id for one in series.predictions] == ["0.dcm"]
    assert not series.failures
    (by_table,) = Predictor([load_bundle(result.run)], cpu).predict(dataset.cases[:1])
    assert isinstance(by_table, Prediction)
    assert series.predictions[0].values["bmd"].mean == pytest.approx(by_table.values["bmd"].mean, abs=1e-4)
    single = predict([result.run], [folder / "v5.nii.gz"], tmp_path / "out", plane="sagittal", config=cpu)
    assert single.measurements[0][0].value == pytest.approx(dataset.cases[5].targets["bmd"], abs=60)


def test_a_table_without_the_quantity_is_named(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("image,subject,density\nv1.nii.gz,s1,3\n")
    with pytest.raises(LabelError, match=r"no column has a quantity of the schema 'bone'.*columns called bmd.*density"):
        load_data(tmp_path, DataOptions(schema=str(folder / "bone.yaml"), images=folder))


def test_what_is_wrong_with_one_volume_costs_only_that(folder: Path, tmp_path: Path) -> None:
    lines = (folder / "table.csv").read_text().splitlines()[:6]
    (tmp_path / "broken.nii.gz").write_bytes((folder / "v3.nii.gz").read_bytes()[:60])
    text = [line.replace("v3.nii.gz", str(tmp_path / "broken.nii.gz")) for line in lines]
    (tmp_path / "table.csv").write_text("\n".join([*text, "lost.nii.gz,s99,100,a"]))
    (tmp_path / "table.columns.yaml").write_text((folder / "table.columns.yaml").read_text())
    dataset = load_data(tmp_path, DataOptions(schema=str(folder / "bone.yaml"), images=folder))
    assert len(dataset) == 4
    assert any("lost.nii.gz" in problem for problem in dataset.problems)
    assert any("broken.nii.gz" in problem for problem in dataset.problems)


class TestPhantomVolumes:
    def test_are_read_as_they_were_drawn(self, tmp_path: Path) -> None:
        drawn = phantom("lumbar_mri", tmp_path / "v", count=3, size=64, seed=4, overrides=["slices=5"], volumes=True)
        options = DataOptions(schema=str(tmp_path / "v" / "schema.yaml"), columns=tmp_path / "v" / "columns.yaml")
        read = load_data(tmp_path / "v", options)
        assert [q.name for q in read.schema.quantities] == ["bmd"]
        assert [case.id for case in read] == [case.id for case in drawn]
        settings = phantom_settings("lumbar_mri", size=64).model_copy(update={"slices": 5})
        for number, (case, middle) in enumerate(zip(read, drawn, strict=True)):
            assert case.targets["bmd"] == pytest.approx(middle.targets["bmd"])
            assert case.tags["age"] == pytest.approx(middle.tags["age"])
            assert case.subject == middle.subject
            np.testing.assert_array_equal(case.image.load(), middle.image.load())
            assert isinstance(case.image, SlabSource)
            whole = make_volume(number, seed=4, settings=settings).array
            np.testing.assert_array_equal(case.image.load_slab(2), whole)
            assert case.frame.spacing == pytest.approx(middle.frame.spacing)

    def test_the_same_phantoms_are_the_same_files(self, tmp_path: Path) -> None:
        for name in ("a", "b"):
            phantom("lumbar_mri", tmp_path / name, count=1, size=64, overrides=["slices=3"], volumes=True)
        first, second = (next((tmp_path / name / "volumes").iterdir()).read_bytes() for name in ("a", "b"))
        assert first == second

    def test_an_anatomy_without_volumes_is_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"'hand' has no volumes.*lumbar_mri"):
            phantom("hand", tmp_path / "v", count=1, size=64, volumes=True)
        assert not (tmp_path / "v").exists()


def test_a_series_is_one_volume_and_other_files_stand_for_themselves(folder: Path, tmp_path: Path) -> None:
    both = tmp_path / "both"
    shutil.copytree(folder / "series", both)
    second = tmp_path / "second"
    write_series(second, voxels(3)[0])
    for file in second.iterdir():
        shutil.copy(file, both / f"b{file.name}")
    shutil.copy(folder / "v1.nii.gz", both / "v1.nii.gz")
    (both / "broken.dcm").write_bytes(b"no")
    cases, failures = load_images([both], plane="sagittal")
    assert [case.id for case in cases] == ["0.dcm", "b0.dcm", "v1.nii.gz"]
    assert [failure.case_id for failure in failures] == ["broken.dcm"]
    for case, number in zip(cases, (0, 3, 1), strict=True):
        np.testing.assert_array_equal(case.image.load(), voxels(number)[0][3, ::-1, ::-1].T)
    without, failures = load_images([both])
    assert len(without) == 14, "without a plane every DICOM file is an image"
    assert [failure.case_id for failure in failures] == ["broken.dcm", "v1.nii.gz"]
