"""The table of phantoms and what all of them share."""

import subprocess
import sys

import numpy as np
import pytest

from bregma.errors import ConfigError
from bregma.geometry import Frame
from bregma.phantoms import PHANTOMS, iter_phantoms, make_phantoms
from bregma.phantoms.base import Phantom, PhantomSettings, landmark_set, phantom_rngs
from bregma.schema import schema_from_dict
from bregma.types import Status

SCHEMA = schema_from_dict(
    {"name": "three", "title": "t", "landmarks": [{"name": n, "label": n} for n in ("a", "b", "c")]}, where="test"
)


def phantom(**points):
    return Phantom(np.zeros((100, 80), np.uint8), points, None, occluded=frozenset({"b"}))


def test_status_follows_position_and_presence():
    marks = landmark_set(SCHEMA, phantom(b=(79.4, 10.0), a=(79.6, 10.0)), Frame((100, 80)))
    assert marks.status.tolist() == [Status.OUTSIDE, Status.OCCLUDED, Status.OUTSIDE]
    assert marks.points.tolist() == [[0, 0], [79.4, 10.0], [0, 0]]


def test_point_unknown_to_schema_is_refused():
    with pytest.raises(ConfigError, match="'z'"):
        landmark_set(SCHEMA, phantom(z=(1.0, 1.0)), Frame((100, 80)))


def test_float_pixels_are_refused():
    with pytest.raises(ConfigError, match="uint8 or uint16"):
        Phantom(np.zeros((100, 80)), {}, None)


def test_streams_of_subject_image_name_and_seed_differ():
    keys = [("x", 0, 0, 0), ("x", 0, 1, 0), ("x", 1, 0, 0), ("y", 0, 0, 0)]
    first = {key: [rng.random() for rng in phantom_rngs(*key)] for key in keys}
    assert len({value for pair in first.values() for value in pair}) == 8
    again = [rng.random() for rng in phantom_rngs("x", 0, 0, 1)]
    assert again[0] == first["x", 0, 0, 0][0]
    assert again[1] != first["x", 0, 0, 0][1]


def test_one_number_is_a_square():
    assert PhantomSettings(size=96).size == (96, 96)


@pytest.mark.parametrize(("arguments", "word"), [({"count": -1}, "count"), ({"count": 1, "seed": -1}, "seed")])
def test_numbers_are_checked_before_anything_is_drawn(arguments, word):
    with pytest.raises(ConfigError, match=word):
        iter_phantoms("lumbar_lateral", **arguments)


def test_unknown_phantom_lists_the_known():
    with pytest.raises(ConfigError, match="lumbar_mri"):
        make_phantoms("unicorn", 1)


def test_table_is_light():
    code = "import sys, bregma.phantoms; print(*[m for m in ('numpy', 'cv2', 'pydantic') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_table_rows_name_what_exists():
    for info in PHANTOMS.values():
        assert callable(info.generator())
        assert info.summary
