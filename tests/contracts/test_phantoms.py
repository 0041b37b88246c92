"""One set of checks over every row of the table of phantoms."""

import numpy as np
import pytest

from bregma.errors import ConfigError
from bregma.phantoms import PHANTOMS, iter_phantoms, make_phantoms
from bregma.phantoms.base import PhantomSettings
from bregma.schema import load_schema
from bregma.types import Status

pytestmark = pytest.mark.parametrize("name", sorted(PHANTOMS))
SIZE = 128


def same(a, b):
    return (
        a.id == b.id
        and a.frame == b.frame
        and a.landmarks == b.landmarks
        and a.targets == b.targets
        and np.array_equal(a.image.load(), b.image.load())
    )


def test_cases_fit_schema_and_frame(name):
    data = make_phantoms(name, 3, seed=5, size=SIZE)
    assert data.schema == load_schema(PHANTOMS[name].schema)
    for case in data:
        pixels = case.image.load()
        assert pixels.dtype in (np.uint8, np.uint16)
        assert pixels.shape == case.frame.shape == (SIZE, SIZE)
        assert not pixels.flags.writeable
        assert pixels.max() - int(pixels.min()) > 50
        assert case.landmarks.labelled.any()
        assert case.frame.spacing is None or case.frame.spacing_source == "phantom"


def test_labelled_points_lie_on_the_image(name):
    for case in iter_phantoms(name, 6, seed=2, size=SIZE):
        placed = case.landmarks.labelled
        assert case.frame.contains(case.landmarks.points[placed]).all()
        assert not (case.landmarks.status == Status.UNLABELLED).any()


def test_same_seed_same_case(name):
    assert all(map(same, make_phantoms(name, 2, seed=9, size=SIZE), make_phantoms(name, 2, seed=9, size=SIZE)))


def test_case_does_not_depend_on_count_or_start(name):
    many = make_phantoms(name, 4, seed=3, size=SIZE).cases
    assert same(make_phantoms(name, 1, seed=3, size=SIZE).cases[0], many[0])
    assert same(make_phantoms(name, 1, seed=3, start=3, size=SIZE).cases[0], many[3])


def test_seeds_share_no_subject(name):
    first, second = make_phantoms(name, 2, seed=0, size=SIZE), make_phantoms(name, 2, seed=1, size=SIZE)
    assert not set(first.subjects) & set(second.subjects)
    assert not np.array_equal(first.cases[0].image.load(), second.cases[0].image.load())


def test_images_of_one_subject_differ_but_share_its_targets(name):
    data = make_phantoms(name, 4, seed=4, size=SIZE, images_per_subject=2)
    assert len(data.subjects) == 2
    first, second, third, _ = data.cases
    assert first.subject == second.subject != third.subject
    assert first.targets == second.targets
    assert not np.array_equal(first.image.load(), second.image.load())


def test_given_spacing_is_the_frames(name):
    case = make_phantoms(name, 1, size=SIZE, spacing=1.5).cases[0]
    assert case.frame.spacing == (1.5, 1.5)


def test_difficulty_changes_the_image(name):
    easy, hard = (make_phantoms(name, 1, size=SIZE, difficulty=level).cases[0] for level in ("easy", "hard"))
    assert not np.array_equal(easy.image.load(), hard.image.load())


def test_settings_are_checked(name):
    cls = PHANTOMS[name].settings_class()
    assert issubclass(cls, PhantomSettings)
    settings = cls(size=96)
    assert make_phantoms(name, 1, settings=settings).cases[0].frame.shape == (96, 96)
    with pytest.raises(ConfigError, match="another phantom"):
        make_phantoms(name, 1, settings=PhantomSettings())
    with pytest.raises(ConfigError, match="difficulty"):
        make_phantoms(name, 1, difficulty="brutal")
    with pytest.raises(ConfigError, match="at least 64"):
        make_phantoms(name, 1, size=10)
