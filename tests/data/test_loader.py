"""Samples and batches: the same whoever prepares them, with labels that follow the image and say what is missing."""

import threading
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch

from blob_images import BRIGHTNESS, LEFT, MIDDLE, RIGHT, TOP, blob_case, blob_schema, centroid
from bregma import geometry
from bregma.data.augment import AugmentConfig, Geometric
from bregma.data.loader import SampleSource, batches, collate, drawn_order, draws_of, epoch_order
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import ConfigError, ImageError, LabelError
from bregma.geometry import Frame
from bregma.types import ArrayImage, Case, LandmarkSet, Status

SHAPE = (170, 200)
POINTS = np.array([(60.0, 50.0), (140.0, 60.0), (95.0, 115.0), (110.0, 25.0)])
PREPROCESS = PreprocessConfig(size=(128, 160), percentiles=(0, 100))
STILL = AugmentConfig(rotation_deg=0, scale=0, anisotropy=0, shift=0, gamma=0, contrast=0, brightness=0, noise=0)
FULL = AugmentConfig(
    rotation_deg=25, scale=0.15, anisotropy=0.05, shift=0.05, flip=0.5, elastic=0.02, gamma=0.4, contrast=0.25,
    brightness=0.1, histogram=0.3, noise=0.01, blur_px=0.8,
)  # fmt: skip


def source_of(*cases, flip="swap", augment=None, **settings):
    return SampleSource(cases, blob_schema(flip), PREPROCESS, augment, **settings)


def assert_same(one, two):
    for name in ("image", "points_in", "placed", "known", "matrix"):
        np.testing.assert_array_equal(getattr(one, name), getattr(two, name), err_msg=name)


def test_a_plain_sample_is_the_letterboxed_image_with_its_points():
    sample = source_of(blob_case(POINTS, SHAPE)).sample(0)
    # 170 x 200 into 128 x 160: scale 128 / 170, columns centred.
    scale = 128 / 170
    np.testing.assert_allclose(sample.points_in, (POINTS + 0.5) * scale - 0.5 + [(160 - 200 * scale) / 2, 0], atol=1e-9)
    assert sample.image[0].shape == (128, 160)
    assert sample.image[0].dtype == np.float32
    assert sample.placed.tolist() == sample.known.tolist() == [True] * 4
    for point, brightness in zip(sample.points_in, BRIGHTNESS, strict=True):
        assert np.linalg.norm(centroid(sample.image[0], point) - point) <= 0.05
        assert sample.image[0][tuple(point.round().astype(int)[::-1])] == pytest.approx(brightness, abs=0.08)


@pytest.mark.parametrize("darkest", [-1000.0, 0.0, 700.0])
def test_the_margin_of_the_letterbox_is_as_black_as_the_image(darkest):
    # Where black is -1000, as in CT, a margin of zeros would be the brightest part of the picture.
    sample = source_of(blob_case(POINTS, SHAPE, offset=darkest)).sample(0)
    margin = int((160 - 200 * 128 / 170) / 2)
    assert (sample.image[0][:, :margin] == 0).all()
    assert (sample.image[0][:, -margin:] == 0).all()


def test_pixels_that_are_not_square_are_letterboxed_in_millimetres():
    sample = source_of(blob_case(POINTS, SHAPE, spacing=(0.5, 1.0), sigma=(6.0, 3.0))).sample(0)
    # 200 x 0.5 mm by 170 x 1 mm: the height decides, 128 px for 170 mm.
    assert sample.matrix[1, 1] == pytest.approx(128 / 170)
    assert sample.matrix[0, 0] == pytest.approx(0.5 * 128 / 170)
    for point in sample.points_in:
        assert np.linalg.norm(centroid(sample.image[0], point) - point) <= 0.05


@pytest.mark.parametrize("flip", ["swap", "keep"])
def test_points_follow_the_image_through_every_change_at_once(flip):
    source = source_of(blob_case(POINTS, SHAPE), flip=flip, augment=FULL, seed=1)
    errors = []
    for epoch in range(20):
        sample = source.sample(0, epoch)
        assert 0 <= sample.image[0].min() <= sample.image[0].max() <= 1
        for point, placed in zip(sample.points_in, sample.placed, strict=True):
            if placed and (point > 11).all() and (point < (148, 116)).all():
                errors.append(np.linalg.norm(centroid(sample.image[0], point) - point))
    assert len(errors) > 50
    assert max(errors) <= 0.15


@pytest.mark.parametrize(("flip", "left_is"), [("swap", RIGHT), ("keep", LEFT)])
def test_a_flip_swaps_names_where_the_schema_says_so(flip, left_is):
    """The blobs differ in brightness, so the picture tells which one a name points at."""
    sample = source_of(blob_case(POINTS, SHAPE), flip=flip, augment=STILL.model_copy(update={"flip": 1.0})).sample(0)
    plain = source_of(blob_case(POINTS, SHAPE)).sample(0)
    order = [left_is, LEFT + RIGHT - left_is, MIDDLE, TOP]
    mirrored = plain.points_in[order] * (-1, 1) + (159, 0)
    np.testing.assert_allclose(sample.points_in, mirrored, atol=1e-9)
    for point, blob in zip(sample.points_in, order, strict=True):
        assert sample.image[0][tuple(point.round().astype(int)[::-1])] == pytest.approx(BRIGHTNESS[blob], abs=0.08)


def test_a_flip_swaps_what_is_known_of_points_too():
    status = [Status.OUTSIDE, Status.VISIBLE, Status.OCCLUDED, Status.UNLABELLED]
    source = source_of(blob_case(POINTS, SHAPE, status=status), augment=STILL.model_copy(update={"flip": 1.0}))
    sample = source.sample(0)
    assert sample.placed.tolist() == [True, False, True, False]
    assert sample.known.tolist() == [True, True, True, False]


def test_flips_of_an_anatomy_that_forbids_them_are_refused():
    with pytest.raises(ConfigError, match="another anatomy") as caught:
        source_of(blob_case(POINTS, SHAPE), flip="never", augment=STILL.model_copy(update={"flip": 0.1}))
    assert caught.value.where == "augment.flip"
    source_of(blob_case(POINTS, SHAPE), flip="never", augment=STILL)


def test_missing_points_are_masked_and_say_what_is_known():
    status = [Status.VISIBLE, Status.OCCLUDED, Status.OUTSIDE, Status.UNLABELLED]
    sample = source_of(blob_case(POINTS, SHAPE, status=status)).sample(0)
    assert sample.placed.tolist() == [True, True, False, False]
    assert sample.known.tolist() == [True, True, True, False]


def test_a_case_without_labels_has_nothing_placed_or_known():
    sample = source_of(replace(blob_case(POINTS, SHAPE), landmarks=None)).sample(0)
    assert sample.points_in.shape == (4, 2)
    assert np.isfinite(sample.points_in).all()
    assert not sample.placed.any()
    assert not sample.known.any()


def test_points_that_leave_the_input_are_masked_but_known_and_keep_their_position():
    points = np.array([(-0.5, 20.0), (-3.0, 20.0), (199.4, 169.4), (100.0, 171.0)])
    # Stretched, so that the image's border is the input's border.
    stretch = PREPROCESS.model_copy(update={"fit": "stretch"})
    sample = SampleSource((blob_case(points, SHAPE),), blob_schema(), stretch).sample(0)
    assert sample.placed.tolist() == [True, False, True, False]
    assert sample.known.all()
    assert sample.points_in[1, 0] == pytest.approx(-2.5 * 160 / 200 - 0.5)


def test_points_shifted_out_by_augmentation_are_masked():
    source = source_of(blob_case(POINTS, SHAPE), augment=STILL.model_copy(update={"shift": 0.6}), seed=3)
    samples = [source.sample(0, epoch) for epoch in range(30)]
    inside = [((s.points_in >= -0.5) & (s.points_in <= (159.5, 127.5))).all(1) for s in samples]
    assert {bool(x) for row in inside for x in row} == {True, False}
    for sample, expected in zip(samples, inside, strict=True):
        np.testing.assert_array_equal(sample.placed, expected)


def many(count=5, shape=(40, 48)):
    rng = np.random.default_rng(7)
    return [blob_case(rng.uniform(8, 38, (4, 2)), shape, name=f"case{i}") for i in range(count)]


def test_a_sample_depends_on_seed_epoch_and_case_only():
    source = source_of(*many(), augment=FULL, seed=1)
    first = source.sample(3, 2)
    for other in (0, 4):
        source.sample(other, 9)
    assert_same(source.sample(3, 2), first)
    assert_same(source_of(*many(), augment=FULL, seed=1, cache_mb=0).sample(3, 2), first)
    changed = [source.sample(3, 1), source.sample(2, 2), source_of(*many(), augment=FULL, seed=2).sample(3, 2)]
    for sample in changed:
        assert not np.array_equal(sample.matrix, first.matrix)


@pytest.mark.parametrize("workers", [0, 1, 4])
@pytest.mark.parametrize("ahead", [1, 5])
def test_batches_are_the_same_whatever_the_threads(workers, ahead):
    order = epoch_order(5, 2, seed=4, epoch=1)
    reference = [collate([source_of(*many(), augment=FULL).sample(i, 1) for i in chunk], chunk) for chunk in order]
    got = list(batches(source_of(*many(), augment=FULL), order, epoch=1, workers=workers, ahead=ahead))
    assert [b.indices for b in got] == order
    for one, two in zip(got, reference, strict=True):
        for name in ("images", "points_in", "placed", "known"):
            assert torch.equal(getattr(one, name), getattr(two, name)), name
        np.testing.assert_array_equal(one.matrices, two.matrices)


def test_a_batch_has_the_promised_shapes_and_types():
    cases = [blob_case(POINTS, SHAPE), blob_case(POINTS, SHAPE, status=[0, 1, 2, 3], name="b")]
    (batch,) = batches(source_of(*cases), [(1, 0)])
    assert batch.images.shape == (2, 1, 128, 160)
    assert batch.points_in.shape == (2, 4, 2)
    assert {t.dtype for t in (batch.images, batch.points_in, batch.placed, batch.known)} == {torch.float32}
    assert batch.placed.tolist() == [[1, 1, 0, 0], [1, 1, 1, 1]]
    assert batch.known.tolist() == [[1, 1, 1, 0], [1, 1, 1, 1]]
    assert batch.matrices.dtype == np.float64
    assert batch.indices == (1, 0)


@dataclass(frozen=True)
class CountingImage:
    """Counts how often it is read; may fail instead."""

    pixels: np.ndarray
    reads: list = field(default_factory=list)
    fails: bool = False
    path = None

    def load(self):
        self.reads.append(threading.get_ident())
        if self.fails:
            raise ImageError("cannot be read", where="bad.png")
        return self.pixels


def counting(name="a", shape=(256, 256), fails=False):
    return Case(name, name, CountingImage(np.eye(*shape, dtype=np.float32), fails=fails), Frame(shape))


def test_images_are_read_once_within_the_cache_and_each_time_beyond_it():
    # 256 x 256 float32 are a quarter of a MiB: four fit into one.
    cases = [counting(f"c{i}") for i in range(6)]
    source = source_of(*cases, cache_mb=1)
    for _ in range(3):
        for index in range(6):
            source.sample(index)
    assert [len(case.image.reads) for case in cases] == [1, 1, 1, 1, 3, 3]


def test_views_share_the_cache_and_its_limit():
    cases = [counting(f"c{i}") for i in range(6)]
    source = source_of(*cases, cache_mb=1)
    view = source.seen_through(Geometric(geometry.rotate(10), False, None))
    for index in range(3):
        source.sample(index)
    for seen in (view, source):
        for index in range(6):
            seen.sample(index)
    assert [len(case.image.reads) for case in cases] == [1, 1, 1, 1, 2, 2]


def test_a_view_is_a_fixed_change_without_augmentation():
    source = source_of(blob_case(POINTS, SHAPE), augment=FULL)
    turn = geometry.rotate(30, about=(79.5, 63.5))
    sample = source.seen_through(Geometric(turn, False, None)).sample(0, epoch=5)
    plain = source_of(blob_case(POINTS, SHAPE)).sample(0)
    np.testing.assert_allclose(sample.points_in, geometry.apply(turn, plain.points_in), atol=1e-9)
    np.testing.assert_allclose(sample.matrix, turn @ plain.matrix)
    assert source.augment is FULL


def test_an_image_of_another_size_than_its_frame_is_refused_by_name():
    case = replace(blob_case(POINTS, SHAPE, name="wide"), frame=Frame((170, 201)))
    with pytest.raises(ImageError, match="frame") as caught:
        source_of(case).sample(0)
    assert caught.value.where == "wide"
    assert caught.value.expected == "(170, 201)"


def test_a_bad_pixel_is_refused_by_name():
    case = blob_case(POINTS, SHAPE, name="hole")
    image = case.image.load().copy()
    image[3, 5] = np.nan
    with pytest.raises(ImageError, match="not finite") as caught:
        source_of(replace(case, image=ArrayImage(image))).sample(0)
    assert caught.value.where == "hole"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_error_in_a_thread_comes_out_at_its_place(workers):
    good = [counting(f"c{i}", (64, 64)) for i in range(5)]
    good[2] = counting("bad", (64, 64), fails=True)
    iterator = batches(source_of(*good), [(0,), (1,), (2,), (3,), (4,)], workers=workers)
    assert [next(iterator).indices for _ in range(2)] == [(0,), (1,)]
    with pytest.raises(ImageError, match=r"bad\.png"):
        next(iterator)
    assert not [t for t in threading.enumerate() if t.name.startswith("bregma-loader")]


def test_giving_up_early_leaves_no_threads_behind():
    cases = [counting(f"c{i}", (64, 64)) for i in range(30)]
    iterator = batches(source_of(*cases), [(i,) for i in range(30)], workers=2, ahead=2)
    next(iterator)
    iterator.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("bregma-loader")]
    assert sum(len(case.image.reads) for case in cases) < 10


@pytest.mark.parametrize(("count", "size"), [(8, 4), (9, 4), (11, 4), (3, 8), (1, 8), (5, 1)])
def test_every_batch_of_an_epoch_is_full_and_every_case_seen(count, size):
    order = epoch_order(count, size, seed=0, epoch=0)
    assert {len(batch) for batch in order} == {min(size, count)}
    assert len(order) == -(-count // size)
    assert {index for batch in order for index in batch} == set(range(count))
    assert all(len(set(batch)) == len(batch) for batch in order)


def test_epochs_are_shuffled_anew_and_repeatably():
    one = epoch_order(50, 5, seed=0, epoch=0)
    assert one == epoch_order(50, 5, seed=0, epoch=0)
    assert one != epoch_order(50, 5, seed=0, epoch=1)
    assert one != epoch_order(50, 5, seed=1, epoch=0)
    assert one != [tuple(range(i, i + 5)) for i in range(0, 50, 5)]


def test_of_a_subjects_images_an_epoch_draws_one():
    cases = [
        Case(f"{subject}_{n}", str(subject), None, Frame((4, 4))) for subject in range(6) for n in range(subject + 1)
    ]
    draws = draws_of(cases, by_subject=True)
    orders = [drawn_order(draws, 4, seed=0, epoch=epoch) for epoch in range(40)]
    for order in orders:
        shown = [cases[i].subject for batch in order for i in batch]
        assert set(shown) == set("012345")
        assert len(shown) == 8
    seen = {i for order in orders for batch in order for i in batch}
    assert seen == set(range(len(cases)))
    assert orders[3] == drawn_order(draws, 4, seed=0, epoch=3)
    alone = draws_of(cases, by_subject=False)
    assert drawn_order(alone, 4, seed=0, epoch=2) == epoch_order(len(cases), 4, seed=0, epoch=2)


def test_an_epoch_of_nothing_is_refused():
    with pytest.raises(LabelError, match="no cases"):
        epoch_order(0, 4, seed=0, epoch=0)


def test_landmarks_are_not_changed_by_sampling():
    case = blob_case(POINTS, SHAPE)
    before = LandmarkSet(case.landmarks.points, case.landmarks.status)
    image = case.image.load().copy()
    source = source_of(case, augment=FULL)
    for epoch in range(5):
        source.sample(0, epoch)
    assert case.landmarks == before
    np.testing.assert_array_equal(case.image.load(), image)
