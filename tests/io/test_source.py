"""Finding and recognising images."""

from __future__ import annotations

import pickle
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import bregma.io
from bregma.errors import ConfigError, ImageError
from bregma.io import FileImage, ImageOptions, find_images, open_image, read_frame, read_image
from bregma.types import ImageSource
from dicom_files import RAMP, write_dicom

GREY = np.arange(20, dtype=np.uint8).reshape(4, 5)


def png(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(GREY).save(path, "PNG")
    return path


def test_every_public_name_exists():
    for name in bregma.io.__all__:
        assert getattr(bregma.io, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        _ = bregma.io.no_such_name


def test_importing_the_package_is_light():
    code = "import sys, bregma.io; print(sorted({'pydicom', 'nibabel', 'PIL', 'cv2'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_content_decides_not_the_suffix(tmp_path):
    path = png(tmp_path / "really_a_png.dcm")
    np.testing.assert_array_equal(read_image(path)[0], GREY)
    dicom = write_dicom(tmp_path / "really_dicom.png", RAMP)
    assert read_frame(dicom).shape == (3, 4)


def test_open_image_reads_later(tmp_path):
    path = png(tmp_path / "a.png")
    image, frame = open_image(str(path), spacing=(0.5, 0.25))
    assert isinstance(image, ImageSource)
    assert image.path == path
    assert (frame.shape, frame.spacing, frame.spacing_source) == ((4, 5), (0.5, 0.25), "user")
    assert image == FileImage(path, ImageOptions(spacing=(0.5, 0.25)))
    assert image.read_frame() == frame
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(image)).load(), GREY)
    path.unlink()
    with pytest.raises(ImageError, match="does not exist"):
        image.load()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(b"", "is empty"), (b"hello, I am text" * 40, "is not an image"), (b"\x1f\x8b\x08broken", "broken gzip")],
)
def test_what_is_no_image(tmp_path, content, problem):
    path = tmp_path / "a.png"
    path.write_bytes(content)
    for read in (read_frame, read_image):
        with pytest.raises(ImageError, match=rf"a\.png: .*{problem}"):
            read(path)


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ImageError, match="does not exist"):
        read_image(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder, to be read as the DICOM series"):
        read_image(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        find_images(tmp_path / "none")


@pytest.mark.parametrize(
    "options",
    [
        {"frame": -1},
        {"frame": "last"},
        {"frame": 1.5},
        {"frame": True},
        {"window": "bone"},
        {"window": (40.0, 0.5)},
        {"window": (float("nan"), 10.0)},
        {"window": -1},
        {"plane": "oblique"},
        {"position": -2},
        {"max_pixels": 0},
    ],
)
def test_false_options_are_refused(options):
    with pytest.raises(ConfigError):
        ImageOptions(**options)


def test_find_images(tmp_path):
    names = ["b.PNG", "a.jpeg", "sub/c.nii.gz", "sub/deep/d.dcm", "e.tiff"]
    for name in [*names, "notes.txt", ".hidden.png", "__MACOSX/x.png", "labels.csv", ".git/y.png", "sub/f.gz"]:
        png(tmp_path / name)
    write_dicom(tmp_path / "IM0001", RAMP)
    write_dicom(tmp_path / "1.2.840.17", RAMP)
    write_dicom(tmp_path / "DICOMDIR", RAMP)
    (tmp_path / "README").write_text("no image")
    expected = sorted(tmp_path / name for name in [*names, "IM0001", "1.2.840.17"])
    assert find_images(tmp_path) == expected
    assert find_images(str(tmp_path / "a.jpeg")) == [tmp_path / "a.jpeg"]
    (tmp_path / "empty").mkdir()
    assert find_images(tmp_path / "empty") == []


def test_headers_of_800_files_are_read_in_two_seconds(tmp_path):
    raster = png(tmp_path / "a.png")
    dicom = write_dicom(tmp_path / "a.dcm", np.zeros((400, 400), np.uint16), PixelSpacing=[0.2, 0.2])
    read_frame(dicom)
    start = time.process_time()
    for _ in range(400):
        read_frame(raster)
        read_frame(dicom)
    assert time.process_time() - start < 2.0
