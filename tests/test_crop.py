"""Parts of images: where they lie, that points follow them exactly, and what cannot be cut."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tiny
from bregma.crop import (
    Box,
    CropConfig,
    CroppedImage,
    CroppedSlab,
    box_about,
    cropped,
    enclosed,
    middle_box,
    middle_of,
    slices_beside,
    sureness,
    uncropped,
)
from bregma.errors import ConfigError, ImageError, InputError
from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.prediction.cropping import Cropper
from bregma.prediction.failure import Failure
from bregma.types import ArrayImage, ArraySlab, Case, LandmarkSet, Prediction, SlabSource, Status

FRAME = Frame((100, 200), (0.5, 0.5), "user")


def pixels(rows: int = 100, columns: int = 200) -> np.ndarray:
    return np.arange(rows * columns, dtype=np.uint16).reshape(rows, columns)


def case(points: list[list[float]], status: list[int] | None = None, frame: Frame = FRAME) -> Case:
    marks = LandmarkSet(np.array(points), status)
    return Case("c", "s", ArrayImage(pixels(*frame.shape)), frame, marks, observers={"second": marks})


class TestMiddle:
    @pytest.mark.parametrize(
        ("share", "expected"), [(1.0, [0, 0, 200, 100]), (0.5, [50, 25, 150, 75]), (0.01, [92, 42, 108, 58])]
    )
    def test_it_holds_a_share_of_rows_and_of_columns(self, share: float, expected: list[int]) -> None:
        assert middle_box(FRAME, share).to_list() == expected

    def test_a_small_image_is_seen_whole(self) -> None:
        assert middle_box(Frame((10, 12)), 0.1).to_list() == [0, 0, 12, 10]


class TestAboutPoints:
    POINTS = np.array([[60.0, 40.0], [100.0, 50.0], [80.0, 60.0]])

    def test_the_margin_is_a_share_of_the_longer_side(self) -> None:
        assert box_about(self.POINTS, FRAME, 0.25, where="c").to_list() == [50, 30, 111, 71]

    def test_it_is_the_same_length_where_pixels_are_not_square(self) -> None:
        frame = replace(FRAME, spacing=(0.5, 1.0))
        box = box_about(self.POINTS, frame, 0.25, where="c")
        # The longer side: 40 px of 0.5 mm, and 20 px of 1 mm; a quarter of either is 5 mm.
        assert box.to_list() == [50, 35, 111, 66]

    def test_it_ends_with_the_image(self) -> None:
        assert box_about(self.POINTS, FRAME, 3.0, where="c").to_list() == [0, 0, 200, 100]

    def test_a_tiny_one_is_widened(self) -> None:
        box = box_about(np.array([[60.0, 40.0], [61.0, 40.0]]), FRAME, 0.0, where="c")
        assert min(box.shape) >= 16
        assert box.left <= 60 <= box.right

    def test_points_beside_the_image(self) -> None:
        with pytest.raises(ImageError, match=r"here\.png.*beside it"):
            box_about(self.POINTS + 400, FRAME, 0.1, where="here.png")

    def test_too_few_points(self) -> None:
        with pytest.raises(ImageError, match=r"here\.png.*too few landmarks.*2 or more, got 1"):
            box_about(self.POINTS[:1], FRAME, 0.1, where="here.png")


class TestCutting:
    @settings(max_examples=30, deadline=None)
    @given(st.integers(0, 150), st.integers(0, 60), st.integers(16, 50), st.integers(16, 40))
    def test_points_lie_on_the_same_pixels_and_come_back(self, left: int, top: int, width: int, height: int) -> None:
        box = Box(left, top, left + width, top + height)
        inside = [left + 3.0, top + 4.0]
        part = cropped(case([inside]), box)
        assert part.landmarks is not None
        (x, y) = part.landmarks.points[0].astype(int)
        assert part.image.load()[y, x] == pixels()[top + 4, left + 3]
        assert part.image.load().shape == part.frame.shape
        seen = Prediction("c", part.landmarks.points, np.eye(2)[None], np.ones(1), part.frame)
        back = uncropped(seen, box, FRAME)
        assert back.mean.tolist() == [inside]
        assert back.frame == FRAME
        assert back.cov.tolist() == seen.cov.tolist()

    def test_landmarks_beside_it_are_not_on_its_image(self) -> None:
        whole = case([[49.4, 30], [50, 30], [149.4, 30], [149.6, 30], [0, 0]], [0, 1, 0, 0, 3])
        part = cropped(whole, Box(50, 25, 150, 75))
        for marks in (part.landmarks, part.observers["second"]):
            assert marks is not None
            assert [Status(s).name for s in marks.status] == ["OUTSIDE", "OCCLUDED", "VISIBLE", "OUTSIDE", "UNLABELLED"]

    def test_spacing_and_all_else_stay(self) -> None:
        whole = replace(case([[60, 60]]), targets={"bmd": 1.0}, tags={"age": 3})
        part = cropped(whole, Box(50, 25, 150, 75))
        assert part.frame == replace(FRAME, shape=(50, 100))
        assert (part.id, part.subject, part.targets, part.tags) == ("c", "s", {"bmd": 1.0}, {"age": 3})

    def test_slices_are_cut_alike(self) -> None:
        slab = np.stack([pixels() + add for add in (0, 1, 2)])
        box = Box(50, 25, 150, 75)
        for whole in (ArraySlab(slab), Stored(slab)):
            image = cropped(replace(case([[60, 60]]), image=whole), box).image
            assert isinstance(image, SlabSource)
            assert np.array_equal(image.load_slab(1), slab[:, 25:75, 50:150])
            assert np.array_equal(image.load(), slab[1, 25:75, 50:150])

    def test_a_single_image_has_no_slices(self) -> None:
        image = cropped(replace(case([[60, 60]]), image=Flat()), Box(50, 25, 150, 75)).image
        assert isinstance(image, CroppedImage)
        assert not isinstance(image, CroppedSlab)
        assert not isinstance(image, SlabSource)
        assert image.path == Path("flat.png")

    def test_pixels_are_read_when_they_are_asked_for(self) -> None:
        Flat.loads = 0
        image = cropped(replace(case([[60, 60]]), image=Flat()), Box(50, 25, 150, 75)).image
        assert Flat.loads == 0
        image.load()
        assert Flat.loads == 1

    @pytest.mark.parametrize("image", [ArrayImage(pixels(200, 400)), ArrayImage(pixels(50, 100))])
    def test_an_image_that_is_not_as_large_as_its_frame_says(self, image: ArrayImage) -> None:
        whole = replace(case([[60, 60]]), image=image)
        with pytest.raises(ImageError, match=r"c: the image is not as large as its frame says.*\(100, 200\)"):
            cropped(whole, Box(0, 0, 40, 30))
        with pytest.raises(ImageError, match="not as large as its frame says"):
            CroppedImage(image, Box(0, 0, 40, 30), FRAME.shape).load()

    def test_the_rest_of_the_image_is_forgotten(self) -> None:
        slab = np.stack([pixels()] * 3)
        box = Box(0, 25, 200, 75)
        for whole in (ArrayImage(pixels()), ArraySlab(slab), Stored(slab), Flat()):
            part = cropped(replace(case([[60, 60]]), image=whole), box).image.load()
            base = part.base if part.base is not None else part
            assert base.size <= 3 * part.size

    @pytest.mark.parametrize("sides", [(5, 0, 5, 10), (-1, 0, 5, 10), (0, 9, 5, 3)])
    def test_an_empty_rectangle(self, sides: tuple[int, int, int, int]) -> None:
        with pytest.raises(InputError, match="no pixels"):
            Box(*sides)

    def test_elements_of_a_chain_move_too(self) -> None:
        one = Instance("spine", ("a",), np.array([[3.0, 4.0]]), np.eye(2)[None], np.ones(1), 1.0)
        seen = Prediction("c", np.zeros((1, 2)), np.eye(2)[None], np.ones(1), Frame((50, 100)), instances=(one,))
        back = uncropped(replace(seen, samples=np.zeros((2, 1, 2))), Box(50, 25, 150, 75), FRAME)
        assert back.instances is not None
        assert back.instances[0].points.tolist() == [[53.0, 29.0]]
        assert back.samples is not None
        assert back.samples.tolist() == [[[50.0, 25.0]]] * 2


class TestBesideTheMiddle:
    """Slices ``0 … 6`` hold their own numbers; the middle one is 3."""

    SLAB = np.stack([np.full(FRAME.shape, number) for number in range(7)])
    WHOLE = Box(0, 0, 200, 100)

    @pytest.mark.parametrize(
        ("beside", "reach", "seen"),
        [(0, 1, [2, 3, 4]), (2, 1, [4, 5, 6]), (-2, 1, [0, 1, 2]), (3, 0, [6]), (-3, 0, [0])],
    )
    def test_the_slices_about_another_one(self, beside: int, reach: int, seen: list[int]) -> None:
        whole = ArraySlab(self.SLAB)
        assert slices_beside(whole, beside, reach)[:, 0, 0].tolist() == seen
        for image in (whole, Volume(self.SLAB)):
            part = cropped(replace(case([[60, 60]]), image=image), replace(self.WHOLE, beside=beside)).image
            assert isinstance(part, SlabSource)
            assert part.load_slab(reach)[:, 0, 0].tolist() == seen
            assert part.load()[0, 0] == seen[reach]

    def test_no_slices_lie_there(self) -> None:
        with pytest.raises(ImageError, match="too few slices"):
            slices_beside(ArraySlab(self.SLAB), 3, 1)
        with pytest.raises(ImageError, match="too few slices"):
            cropped(replace(case([[60, 60]]), image=ArraySlab(self.SLAB)), replace(self.WHOLE, beside=4))

    def test_an_image_has_none(self) -> None:
        with pytest.raises(ImageError, match=r"not the slices of a volume.*crop\.slices"):
            cropped(case([[60, 60]]), replace(self.WHOLE, beside=1))

    @pytest.mark.parametrize("beside", [0, 2, -1])
    def test_it_is_written_and_read(self, beside: int) -> None:
        box = replace(self.WHOLE, beside=beside)
        assert Box(*box.to_list()) == box

    @pytest.mark.parametrize(
        ("weights", "middle"),
        [
            ([0, 0, 0, 0, 0], 0),
            ([1, 1, 1, 1, 1], 0),
            ([0, 0, 0, 1, 1.1], 2),
            ([0, 1, 1, 1, 0], 0),
            ([1, 1, 1, 0, 0], -1),
            # A slice that shows them a little more surely does not outweigh that others show them as well.
            ([0, 0, 1, 1, 1.3], 1),
            ([0, 0, 0.2, 0.6, 1.0], 2),
            ([0, 0, 0.9, 1.0, 0], 1),
            ([0.1, 0.1, 0.1, 0.1, 1.0], 2),
            ([1, 0.1, 0.9, 0.9, 0.9], -2),
        ],
    )
    def test_the_middle_of_what_shows_them(self, weights: list[float], middle: int) -> None:
        assert middle_of(weights) == middle

    def test_surer_landmarks_weigh_more_and_absent_ones_nothing(self) -> None:
        names = tiny.SCHEMA.names
        sure = next(Found([[60, 40], [100, 60]], [1, 1]).predict([case([[60, 60]])]))
        vague = replace(sure, cov=9 * sure.cov)
        assert sureness(vague, names, ()) == pytest.approx(sureness(sure, names, ()) / 9)
        assert sureness(replace(sure, presence=np.array([1, 0.2])), names, ()) == pytest.approx(1)
        assert sureness(replace(sure, presence=np.zeros(2)), names, ()) == 0
        assert sureness(replace(sure, cov=np.stack([np.eye(2), 4 * np.eye(2)])), names, ["dark"]) == pytest.approx(
            1 / 4
        )
        assert sureness(replace(sure, cov=1e-9 * sure.cov), names, ()) == pytest.approx(2)


class Volume:
    """A volume of any number of slices on disk."""

    path = Path("volume.nii")

    def __init__(self, slab: np.ndarray) -> None:
        self.inner = ArraySlab(slab)

    def load(self) -> np.ndarray:
        return self.inner.load()

    def load_slab(self, reach: int) -> np.ndarray:
        return self.inner.load_slab(reach)


class Flat:
    """An image on disk."""

    path = Path("flat.png")
    loads = 0

    def load(self) -> np.ndarray:
        Flat.loads += 1
        return pixels()


class Stored:
    """A volume on disk."""

    path = Path("volume.nii")

    def __init__(self, slab: np.ndarray) -> None:
        self.slab = slab

    def load(self) -> np.ndarray:
        return np.asarray(self.slab[1])

    def load_slab(self, reach: int) -> np.ndarray:
        return np.asarray(self.slab[1 - reach : 2 + reach])


class Found:
    """A landmark model that finds what it is told."""

    schema = tiny.SCHEMA
    slices = 1

    def __init__(self, points: list[list[float]], presence: list[float]) -> None:
        self.points, self.presence = np.array(points), np.array(presence)

    def predict(self, cases):  # type: ignore[no-untyped-def]
        for one in cases:
            if one.id == "broken":
                yield Failure(one.id, "no file")
            else:
                yield Prediction(one.id, self.points, np.tile(np.eye(2), (2, 1, 1)), self.presence, one.frame)


class Lit:
    """A landmark model that finds its landmarks on slices of ones."""

    schema = tiny.SCHEMA
    slices = 1

    def predict(self, cases):  # type: ignore[no-untyped-def]
        for one in cases:
            found = one.image.load().mean()
            places = np.array([[60.0, 40.0], [100.0, 60.0]])
            yield Prediction(one.id, places, np.tile(np.eye(2), (2, 1, 1)), np.full(2, found), one.frame)


class TestCropper:
    def test_the_part_is_about_what_was_found(self) -> None:
        cropper = Cropper(CropConfig(roi="model", margin=0), Found([[60, 40], [100, 60]], [1, 1]))
        (box,) = cropper.boxes([case([[60, 60]])])
        assert box.to_list() == [60, 40, 101, 61]

    def test_what_was_not_found_does_not_count(self) -> None:
        cropper = Cropper(CropConfig(roi="model"), Found([[60, 40], [100, 60]], [1, 0.1]))
        with pytest.raises(ImageError, match="too few landmarks"):
            cropper.boxes([case([[60, 60]])])

    def test_a_case_that_the_model_cannot_look_at(self) -> None:
        cropper = Cropper(CropConfig(roi="model"), Found([[60, 40], [100, 60]], [1, 1]))
        with pytest.raises(ImageError, match=r"broken.*no part to look at \(no file\)"):
            cropper.boxes([replace(case([[60, 60]]), id="broken")])

    def test_only_named_landmarks_count_where_some_are_named(self) -> None:
        answer = next(Found([[60, 40], [100, 60]], [1, 1]).predict([case([[60, 60]])]))
        assert enclosed(answer, tiny.SCHEMA.names, ["dark"]).tolist() == [[100, 60]]
        assert len(enclosed(answer, tiny.SCHEMA.names, [])) == 2

    def test_elements_without_a_name_count(self) -> None:
        one = Instance(
            "spine", ("a", "b"), np.array([[3.0, 4.0], [9.0, 9.0]]), np.tile(np.eye(2), (2, 1, 1)), [1, 0], 1
        )
        answer = next(Found([[60, 40], [100, 60]], [0, 0]).predict([case([[60, 60]])]))
        assert enclosed(replace(answer, instances=(one,)), tiny.SCHEMA.names, []).tolist() == [[3.0, 4.0]]

    @pytest.mark.parametrize(
        ("lit", "beside"), [((2, 3, 4), 0), ((3, 4, 5), 1), ((0, 1, 2), -2), ((6,), 3), ((), None)]
    )
    def test_the_slice_in_the_middle_of_those_that_show_them(self, lit: tuple[int, ...], beside: int | None) -> None:
        slab = np.stack([np.full(FRAME.shape, number in lit) for number in range(-1, 8)])
        cropper = Cropper(CropConfig(roi="model", margin=0, slices=3), Lit(), reach=1)
        whole = replace(case([[60, 60]]), image=Volume(slab))
        if beside is None:
            with pytest.raises(ImageError, match="too few landmarks"):
                cropper.boxes([whole])
        else:
            (box,) = cropper.boxes([whole])
            assert (box.left, box.top, box.beside) == (60, 40, beside)

    def test_slices_that_the_network_will_miss_are_missed_at_once(self) -> None:
        whole = replace(case([[60, 60]]), image=Volume(np.ones((9, *FRAME.shape))))
        assert Cropper(CropConfig(roi="model", slices=3), Lit(), reach=1).boxes([whole])
        for slices, reach in ((3, 2), (4, 1)):
            with pytest.raises(ImageError, match="too few slices"):
                Cropper(CropConfig(roi="model", slices=slices), Lit(), reach).boxes([whole])

    def test_slices_of_what_is_no_volume(self) -> None:
        cropper = Cropper(CropConfig(roi="model", slices=1), Found([[60, 40], [100, 60]], [1, 1]))
        with pytest.raises(ImageError, match=r"not the slices of a volume.*crop\.slices"):
            cropper.boxes([case([[60, 60]])])

    @pytest.mark.parametrize(
        ("config", "found", "words"),
        [
            (CropConfig(slices=2), False, r"crop\.slices.*crop\.roi"),
            (CropConfig(landmarks=("dark",)), False, r"crop\.landmarks.*crop\.roi"),
            (CropConfig(roi="model", share=0.5), True, r"crop\.share"),
            (CropConfig(roi="model", landmarks=("grey",)), True, r"no landmark 'grey'.*bright, dark"),
        ],
    )
    def test_settings_that_contradict_each_other(self, config: CropConfig, found: bool, words: str) -> None:
        with pytest.raises(ConfigError, match=words):
            Cropper(config, Found([[0, 0], [1, 1]], [1, 1]) if found else None)
