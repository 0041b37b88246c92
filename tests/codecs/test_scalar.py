"""Quantities of whole images: units, masks, standards, and what a zoom does to a length."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from bregma import geometry
from bregma.codecs.base import Labels
from bregma.codecs.scalar import ScalarCodec, ScalarCodecConfig, Standard, bounded
from bregma.data.loader import input_factor, values_in
from bregma.errors import ConfigError
from bregma.geometry import Frame
from bregma.schema import schema_from_dict
from bregma.types import ArrayImage, Case

SCHEMA = schema_from_dict(
    {
        "name": "head",
        "title": "Head",
        "quantities": [
            {"name": "hc", "label": "Head circumference", "unit": "mm", "dimension": "length"},
            {"name": "area", "label": "Area", "unit": "mm2", "dimension": "area"},
            {"name": "bmd", "label": "Bone density", "unit": "mg/cm3"},
        ],
    },
    where="here",
)
STANDARDS = (Standard(mean=100, sd=10), Standard(mean=5000, sd=500), Standard(mean=120, sd=35))


def labels(values, known=None):
    v = torch.tensor(values, dtype=torch.float32)
    k = torch.ones_like(v) if known is None else torch.tensor(known, dtype=torch.float32)
    nothing = torch.zeros(len(v), 0)
    return Labels(torch.zeros(len(v), 0, 2), nothing, nothing, nothing, (64, 96), v, k)


def test_what_is_encoded_is_decoded():
    codec = ScalarCodec(ScalarCodecConfig(standards=STANDARDS), SCHEMA)
    target = codec.encode(labels([[110.0, 4500.0, 190.0]]))
    torch.testing.assert_close(target.values, torch.tensor([[1.0, -1.0, 2.0]]))
    decoded = codec.decode({"quantities": target.values}, (64, 96))
    torch.testing.assert_close(decoded.values.mean, torch.tensor([[110.0, 4500.0, 190.0]]))
    assert decoded.values.sd is None
    assert decoded.mean_in.shape == (1, 0, 2)


def test_some_quantities_alone_keep_their_place_in_the_schema():
    codec = ScalarCodec(ScalarCodecConfig(quantities=("bmd",), standards=STANDARDS[2:]), SCHEMA)
    assert codec.outputs.vectors == {"quantities": 1}
    target = codec.encode(labels([[1.0, 2.0, 155.0]], [[0, 0, 1]]))
    torch.testing.assert_close(target.values, torch.tensor([[1.0]]))
    assert codec.decode({"quantities": target.values}, (64, 96)).values.columns == (2,)


def test_a_variance_comes_back_in_the_quantity_s_unit():
    codec = ScalarCodec(ScalarCodecConfig(quantities=("bmd",), variance=True, standards=STANDARDS[2:]), SCHEMA)
    outputs = {"quantities": torch.zeros(2, 1), "log_variance": torch.tensor([[0.0], [1e6]])}
    sd = codec.decode(outputs, (64, 96)).values.sd[:, 0]
    # An output of 0 is the subjects' own spread; none is without bound.
    assert sd[0] == pytest.approx(35.0, rel=1e-4)
    assert sd[1] == pytest.approx(350.0, rel=1e-3)
    assert bounded(torch.tensor(-1e6)).item() == pytest.approx(math.log(1e-3))


@pytest.mark.parametrize(
    ("config", "schema", "words"),
    [
        (ScalarCodecConfig(), None, "declare quantities"),
        (ScalarCodecConfig(quantities=("weight",)), SCHEMA, "no quantity 'weight'"),
        (ScalarCodecConfig(standards=STANDARDS[:1]), SCHEMA, "one standard a quantity"),
    ],
)
def test_what_does_not_fit_is_refused(config, schema, words):
    with pytest.raises(ConfigError, match=words):
        ScalarCodec(config, schema)


def case(spacing=(0.5, 0.5), **targets):
    frame = Frame((100, 200)) if spacing is None else Frame((100, 200), spacing, "user")
    return Case("a", "a", ArrayImage(np.zeros((100, 200), np.uint8)), frame, targets=targets)


def test_a_length_grows_with_the_zoom_and_an_area_with_its_square():
    twice = geometry.scale(2.0)
    values, known = values_in(case(hc=150.0, area=900.0, bmd=110.0), SCHEMA, twice)
    # 150 mm are 300 px of 0.5 mm, and 600 px of the input.
    assert values.tolist() == pytest.approx([600.0, 900.0 * 4 * 4, 110.0])
    assert known.all()
    assert input_factor("length", Frame((9, 9), (0.5, 2.0), "user"), geometry.rotate(30)) == pytest.approx(1.0)


def test_without_a_spacing_a_length_in_millimetres_is_not_known():
    _, known = values_in(case(None, hc=150.0, bmd=110.0), SCHEMA, geometry.identity())
    assert known.tolist() == [False, False, True]
    _, known = values_in(replace(case(), targets={}), SCHEMA, geometry.identity())
    assert not known.any()
