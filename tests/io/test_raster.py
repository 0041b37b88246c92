"""PNG, JPEG, TIFF and BMP."""

from __future__ import annotations

import json
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from bregma.errors import ConfigError, ImageError
from bregma.io import read_frame, read_image

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
DEEP = GREY.astype(np.uint16) * 257 + 3


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize(
    ("name", "array"),
    [
        ("a.png", GREY),
        ("a.bmp", GREY),
        ("a.tif", GREY),
        ("a.png", DEEP),
        ("a.tif", DEEP),
        ("a.tif", (GREY / 3).astype(np.float32)),
        ("a.tif", GREY.astype(np.int32) * -9),
    ],
    ids=["png8", "bmp8", "tif8", "png16", "tif16", "tif-float", "tif-int32"],
)
def test_grey_keeps_values_and_number_type(tmp_path, name, array):
    pixels, frame = read_image(save(tmp_path / name, array))
    assert pixels.dtype == array.dtype
    assert pixels.dtype.isnative
    np.testing.assert_array_equal(pixels, array)
    assert frame.shape == (5, 7)


def tiny_tiff(path: Path, array: np.ndarray, *, order: str = "<", photometric: int = 1) -> Path:
    """Write a grey TIFF by hand (TIFF 6.0): header, one directory, one strip."""
    strip = array.astype(array.dtype.newbyteorder(order)).tobytes()
    height, width = array.shape
    bits = array.dtype.itemsize * 8
    fields = {256: width, 257: height, 258: bits, 259: 1, 262: photometric, 273: 200, 277: 1, 278: height}
    fields[279] = len(strip)
    entries = b"".join(struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0) for tag, value in fields.items())
    mark = b"II*\0" if order == "<" else b"MM\0*"
    header = mark + struct.pack(f"{order}IH", 8, len(fields)) + entries + bytes(4)
    path.write_bytes(header.ljust(200, b"\0") + strip)
    return path


def test_big_endian_tiff(tmp_path):
    pixels, _ = read_image(tiny_tiff(tmp_path / "a.tif", DEEP, order=">"))
    assert pixels.dtype == np.dtype("=u2")
    np.testing.assert_array_equal(pixels, DEEP)


@pytest.mark.parametrize("array", [GREY, DEEP], ids=["8", "16"])
def test_tiff_whose_zero_is_white_is_inverted(tmp_path, array):
    path = tiny_tiff(tmp_path / "a.tif", array, photometric=0)
    np.testing.assert_array_equal(read_image(path)[0], np.iinfo(array.dtype).max - array)


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif"])
def test_colour_becomes_luminance(tmp_path, name):
    colours = np.array(
        [[[255, 0, 0], [0, 255, 0], [0, 0, 255]], [[255, 255, 255], [9, 9, 9], [100, 50, 200]]], np.uint8
    )
    pixels, _ = read_image(save(tmp_path / name, colours))
    assert pixels.dtype == np.uint8
    # 0.299 R + 0.587 G + 0.114 B, rounded: the last is 29.9 + 29.35 + 22.8 = 82.05
    np.testing.assert_array_equal(pixels, [[76, 150, 29], [255, 9, 82]])


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bit_colour_keeps_16_bits(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    bgr = np.array([[[0, 0, 60000], [1001, 1001, 1001]]], np.uint16)
    assert cv2.imwrite(str(path), bgr)
    pixels, _ = read_image(path)
    assert pixels.dtype == np.uint16
    np.testing.assert_array_equal(pixels, [[17940, 1001]])


def test_16_bit_alpha_lies_on_black(tmp_path):
    path = tmp_path / "a.png"
    bgra = np.array([[[1000, 1000, 1000, 65535], [1000, 1000, 1000, 0]]], np.uint16)
    assert cv2.imwrite(str(path), bgra)
    np.testing.assert_array_equal(read_image(path)[0], [[1000, 0]])


def test_alpha_lies_on_black(tmp_path):
    rgba = np.array([[[200, 200, 200, 255], [200, 200, 200, 0], [200, 200, 200, 51]]], np.uint8)
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba))[0], [[200, 0, 40]])


def test_palette_gives_its_colours(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 10, 10, 10])
    image.putdata([0, 1])
    image.save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[76, 10]])


def test_one_bit_image_is_black_and_white(tmp_path):
    save(tmp_path / "a.png", np.array([[True, False]]))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png")[0], [[255, 0]])


# EXIF orientation (CIPA DC-008): where the first row and the first column of the stored image belong.
TURNED = {
    1: [[1, 2, 3], [4, 5, 6]],
    2: [[3, 2, 1], [6, 5, 4]],
    3: [[6, 5, 4], [3, 2, 1]],
    4: [[4, 5, 6], [1, 2, 3]],
    5: [[1, 4], [2, 5], [3, 6]],
    6: [[4, 1], [5, 2], [6, 3]],
    7: [[6, 3], [5, 2], [4, 1]],
    8: [[3, 6], [2, 5], [1, 4]],
}


@pytest.mark.parametrize("name", ["a.png", "a.tif"])
@pytest.mark.parametrize("orientation", TURNED)
def test_exif_orientation_is_applied(tmp_path, orientation, name):
    exif = Image.Exif()
    exif[274] = orientation
    path = save(tmp_path / name, np.array(TURNED[1], np.uint8), exif=exif)
    pixels, frame = read_image(path)
    np.testing.assert_array_equal(pixels, TURNED[orientation])
    assert frame.shape == pixels.shape == read_frame(path).shape


def test_exif_orientation_of_jpeg(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    path = save(tmp_path / "a.jpg", np.repeat(np.repeat(np.array([[0, 255]], np.uint8), 8, 0), 8, 1), exif=exif)
    pixels, frame = read_image(path)
    assert frame.shape == (16, 8)
    assert pixels[:8].max() < 5 < 250 < pixels[8:].min()


def test_several_pages_need_a_choice(tmp_path):
    path = tmp_path / "a.tif"
    pages = [Image.fromarray(np.full((4, 4 + n), 10 * n, np.uint8)) for n in range(3)]
    pages[0].save(path, save_all=True, append_images=pages[1:])
    with pytest.raises(ImageError, match=r"holds 3 pages and none was chosen.*0 to 2"):
        read_frame(path)
    for choice, page in [(0, 0), (2, 2), ("middle", 1)]:
        pixels, frame = read_image(path, frame=choice)
        assert frame.shape == (4, 4 + page)
        assert (pixels == 10 * page).all()
    with pytest.raises(ImageError, match="has no page 3"):
        read_image(path, frame=3)


def test_explicit_window_gives_0_to_1(tmp_path):
    save(tmp_path / "a.png", np.array([[0, 100, 200]], np.uint8))
    pixels, _ = read_image(tmp_path / "a.png", window=(100.5, 101.0))
    np.testing.assert_allclose(pixels, [[0.0, 0.5, 1.0]])
    with pytest.raises(ImageError, match="stores no windows"):
        read_image(tmp_path / "a.png", window=0)


def test_values_that_are_not_finite_become_background(tmp_path):
    save(tmp_path / "a.tif", np.array([[np.nan, 2.0, np.inf, -3.0]], np.float32))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif")[0], [[-3.0, 2.0, -3.0, -3.0]])


class TestSpacing:
    def test_dpi_is_no_spacing(self, tmp_path):
        frame = read_frame(save(tmp_path / "a.png", GREY, dpi=(300, 300)))
        assert frame.spacing is None
        assert frame.spacing_source == "none"
        assert "DPI" in frame.spacing_note

    @pytest.mark.parametrize("sidecar", ["a.json", "a.png.json"])
    def test_sidecar(self, tmp_path, sidecar):
        path = save(tmp_path / "a.png", GREY)
        (tmp_path / sidecar).write_text('{"spacing": [0.2, 0.3]}')
        frame = read_frame(path)
        assert (frame.spacing, frame.spacing_source) == ((0.2, 0.3), "sidecar")
        assert read_frame(path, spacing=(1.0, 2.0)).spacing == (1.0, 2.0)
        assert read_frame(path, spacing=(1.0, 2.0)).spacing_source == "user"

    @pytest.mark.parametrize("content", ['{"shapes": []}', "[1, 2]"])
    def test_other_json_files_are_left_alone(self, tmp_path, content):
        path = save(tmp_path / "a.png", GREY)
        (tmp_path / "a.json").write_text(content)
        assert read_frame(path).spacing is None

    @pytest.mark.parametrize("value", [[0, 1], [0.1], 0.1, [0.1, None], [0.1, float("nan")], [True, 1], "0.1"])
    def test_false_sidecar_is_refused(self, tmp_path, value):
        path = save(tmp_path / "a.png", GREY)
        (tmp_path / "a.json").write_text(json.dumps({"spacing": value}))
        with pytest.raises(ImageError, match=r"a\.json.*spacing"):
            read_frame(path)

    def test_broken_sidecar_is_refused(self, tmp_path):
        path = save(tmp_path / "a.png", GREY)
        (tmp_path / "a.json").write_text('{"spacing": [')
        with pytest.raises(ImageError, match=r"a\.json.*cannot be read"):
            read_frame(path)

    @pytest.mark.parametrize("value", [(0.0, 1.0), (1.0, float("inf")), (-1.0, 1.0), (1.0,)])
    def test_false_spacing_of_a_person_is_refused(self, tmp_path, value):
        with pytest.raises(ConfigError, match="is not a spacing"):
            read_frame(save(tmp_path / "a.png", GREY), spacing=value)


class TestDamage:
    @pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.bmp"])
    @pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
    def test_truncated_file_is_an_error(self, tmp_path, name, share):
        noise = np.random.default_rng(1).integers(0, 255, (64, 64), dtype=np.uint8)
        path = save(tmp_path / name, noise)
        data = path.read_bytes()
        path.write_bytes(data[: int(len(data) * share)])
        with pytest.raises(ImageError, match=rf"a\{path.suffix}.*damaged"):
            read_image(path)

    @pytest.mark.parametrize("width", [11_000, 200_000])
    def test_bomb_is_refused_by_its_header(self, tmp_path, width):
        path = tmp_path / "a.png"
        chunks = [b"IHDR" + struct.pack(">IIBBBBB", width, width, 8, 0, 0, 0, 0), b"IDAT"]
        sealed = [struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks]
        path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(sealed))
        with pytest.raises(ImageError, match="too large"):
            read_frame(path)

    def test_limit_can_be_moved(self, tmp_path):
        path = save(tmp_path / "a.png", GREY)
        assert read_frame(path, max_pixels=35).shape == (5, 7)
        with pytest.raises(ImageError, match="at most 34 pixels, got 7 x 5"):
            read_image(path, max_pixels=34)

    def test_large_image_gives_no_warning(self, tmp_path):
        path = tmp_path / "a.png"
        Image.new("1", (9_600, 9_600)).save(path)
        assert read_frame(path).shape == (9_600, 9_600)
