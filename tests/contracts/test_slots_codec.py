"""The slots codec: elements fill a fixed number of places from the first visible one on, and come back in order."""

import math

import numpy as np
import pytest
import torch

from bregma.codecs import build_codec
from bregma.codecs.base import Labels
from bregma.codecs.slots import SlotsCodecConfig
from bregma.errors import ConfigError
from bregma.schema import load_schema, schema_from_dict

SHAPE = (256, 160)
TOLERANCE_PX = 0.05
PARTS = ("sup_ant", "sup_post", "inf_ant", "inf_post")
LEVELS = ("A", "B", "C", "D")
SACRUM = np.array([(73.3, 199.1), (89.8, 203.4)])


def schema_of(anchor="S", **more):
    own = {
        "name": "column",
        "levels": [*LEVELS, *([anchor] if anchor else [])],
        "parts": {part: part for part in PARTS},
    }
    if anchor:
        own |= {"partial": {anchor: ["sup_ant", "sup_post"]}, "anchor": anchor}
    whole = {"name": "trial", "title": "Trial", "chains": [own | more]}
    return schema_from_dict({**whole, "landmarks": [{"name": "marker", "label": "Marker"}]}, where="trial")


def quad(x, y):
    return np.array([(x - 9.2, y - 6.1), (x + 8.8, y - 5.7), (x - 9.0, y + 6.3), (x + 9.1, y + 5.9)])


def labels_of(schema, elements, *, unknown=(), shape=SHAPE):
    """Labels of one image: level to the corners of its first parts; a corner of None is not on the image."""
    points, placed, known = np.zeros((len(schema), 2)), np.zeros(len(schema)), np.ones(len(schema))
    for level, corners in elements.items():
        for part, corner in zip(PARTS, corners, strict=False):
            if corner is not None:
                i = schema.index(f"{level}_{part}")
                points[i], placed[i] = corner, 1.0
    for name in unknown:
        known[schema.index(name)] = 0.0
    points, placed, known = (torch.tensor(a, dtype=torch.float32)[None] for a in (points, placed, known))
    return Labels(points, placed, placed, known, shape)


def codec_of(schema, stride=1, **settings):
    return build_codec(SlotsCodecConfig(**settings), len(schema), stride, schema)


def ideal(codec, labels):
    """What a perfect network would answer."""
    target = codec.encode(labels)
    maps = target.maps
    if codec.config.activation == "softmax":
        maps = maps.clamp(min=1e-30).log()
    if codec.config.activation == "sigmoid":
        maps = torch.logit(maps.clamp(1e-30, 1 - 1e-6)) + math.log(9)
    return {"maps": maps, "presence": 20 * target.labels.present - 10}


COLUMN = {level: quad(80 + i, 60.3 + 31 * i) for i, level in enumerate(LEVELS)}


def spine(*levels, sacrum=True):
    return {level: COLUMN[level] for level in levels} | ({"S": SACRUM} if sacrum else {})


@pytest.mark.parametrize("activation", ["softmax", "linear", "sigmoid"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("first", range(5))
def test_any_number_of_elements_comes_back_by_name(first, stride, activation):
    schema = schema_of()
    labels = labels_of(schema, spine(*LEVELS[first:]))
    codec = codec_of(schema, stride, slots=10, activation=activation)
    got = codec.decode(ideal(codec, labels), SHAPE)
    assert [one.level for one in got.instances[0]] == [*LEVELS[first:], "S"]
    away = (got.mean_in[0] - labels.points_in[0]).norm(dim=-1)[labels.placed[0] > 0]
    assert away.max() <= TOLERANCE_PX
    torch.testing.assert_close(got.presence[0], labels.placed[0], atol=1e-3, rtol=0)


def test_slots_are_filled_from_the_topmost_visible_element():
    """C, D and the sacrum's endplate are on the image: slots 1 to 3 of 6 hold them, the rest are empty."""
    schema = schema_of()
    codec = codec_of(schema, slots=6)
    target = codec.encode(labels_of(schema, spine("C", "D")))
    assert codec.outputs.maps == 6 * 4 + 1
    assert codec.outputs.vectors == {"presence": 25}
    own = target.labels
    np.testing.assert_allclose(own.points_in[0, :4], COLUMN["C"], rtol=1e-6)
    np.testing.assert_allclose(own.points_in[0, 4:8], COLUMN["D"], rtol=1e-6)
    np.testing.assert_allclose(own.points_in[0, 8:10], SACRUM, rtol=1e-6)
    assert own.placed[0].tolist() == [1.0] * 10 + [0.0] * 15
    assert own.present[0].tolist() == own.placed[0].tolist()
    assert own.known[0].tolist() == [1.0] * 25
    assert target.maps[0, :10].amax((1, 2)).min() > 0.9
    assert target.maps[0, 10:].abs().max() == 0


def test_a_batch_fills_the_slots_of_each_image_by_itself():
    schema = schema_of()
    images = [labels_of(schema, spine(*levels)) for levels in (LEVELS, ("D",), ())]
    both = Labels(
        *(torch.cat([getattr(i, n) for i in images]) for n in ("points_in", "placed", "present", "known")), SHAPE
    )
    codec = codec_of(schema)
    assert codec.encode(both).labels.placed.sum(1).tolist() == [18, 6, 2]
    got = codec.decode(ideal(codec, both), SHAPE)
    assert [[one.level for one in found] for found in got.instances] == [[*LEVELS, "S"], ["D", "S"], ["S"]]


def test_nothing_is_said_of_empty_slots_where_levels_are_unlabelled():
    schema = schema_of()
    labels = labels_of(schema, spine("C", "D"), unknown=[f"A_{part}" for part in PARTS])
    known = codec_of(schema).encode(labels).labels.known[0]
    assert known.tolist() == [1.0] * 12 + [0.0] * 8 + [1.0]


def test_a_part_that_nobody_judged_is_not_taught():
    schema = schema_of()
    labels = labels_of(schema, {"D": [*COLUMN["D"][:3], None]}, unknown=["D_inf_post"])
    own = codec_of(schema).encode(labels).labels
    assert own.placed[0, :4].tolist() == [1, 1, 1, 0]
    assert own.known[0, :4].tolist() == [1, 1, 1, 0]


def test_of_an_element_cut_by_the_border_the_visible_parts_come_back():
    schema = schema_of()
    top = [None, None, (70.0, 4.0), (90.0, 5.0)]
    labels = labels_of(schema, {"C": top, **spine("D")})
    codec = codec_of(schema)
    got = codec.decode(ideal(codec, labels), SHAPE)
    assert [one.level for one in got.instances[0]] == ["C", "D", "S"]
    presence = got.presence[0].numpy()
    assert presence[[schema.index(f"C_{part}") for part in PARTS]].round().tolist() == [0, 0, 1, 1]
    # A single corner fills no slot.
    labels = labels_of(schema, {"C": [None, None, None, (90.0, 5.0)], **spine("D")})
    assert [one.level for one in codec.decode(ideal(codec, labels), SHAPE).instances[0]] == ["D", "S"]


def test_without_the_anchor_elements_are_found_but_not_named():
    schema = schema_of()
    labels = labels_of(schema, spine("B", "C", sacrum=False))
    codec = codec_of(schema)
    got = codec.decode(ideal(codec, labels), SHAPE)
    assert [one.level for one in got.instances[0]] == [None, None]
    np.testing.assert_allclose(got.instances[0][0].points, COLUMN["B"], atol=TOLERANCE_PX)
    assert (got.presence[0, 1:] == 0).all()
    assert got.mean_in[0, 1].tolist() == [79.5, 127.5]


def test_no_element_and_other_landmarks():
    schema = schema_of()
    labels = labels_of(schema, {})
    marker = schema.index("marker")
    labels.points_in[0, marker], labels.placed[0, marker] = torch.tensor([30.2, 40.7]), 1.0
    codec = codec_of(schema)
    got = codec.decode(ideal(codec, labels), SHAPE)
    assert got.instances == ((),)
    np.testing.assert_allclose(got.mean_in[0, marker], [30.2, 40.7], atol=TOLERANCE_PX)
    assert got.presence[0, marker] > 0.99


def test_the_name_is_as_sure_as_the_anchor():
    """Its two corners are there with 0.9 and 0.8, and the two that it lacks with 0.1 and 0.3: 0.7 at worst."""
    schema = schema_of()
    codec = codec_of(schema)
    outputs = ideal(codec, labels_of(schema, spine("D")))
    outputs["presence"][0, 4:8] = torch.logit(torch.tensor([0.9, 0.8, 0.1, 0.3]))
    found = codec.decode(outputs, SHAPE).instances[0]
    assert [one.level for one in found] == ["D", "S"]
    assert [one.level_probability for one in found] == pytest.approx([0.7, 0.7], abs=1e-6)
    assert found[1].parts == PARTS[:2]
    assert found[1].probability == pytest.approx(0.85)


def test_elements_above_the_first_level_are_not_the_schemas():
    """Six filled slots above the sacrum's, of a schema with four levels: two belong to none."""
    schema = schema_of()
    codec = codec_of(schema, slots=8)
    outputs = {"maps": torch.zeros(1, 33, 64, 64), "presence": torch.full((1, 33), -10.0)}
    outputs["presence"][0, : 6 * 4 + 2] = 10.0
    assert [one.level for one in codec.decode(outputs, (64, 64)).instances[0]] == [*LEVELS, "S"]


def test_more_elements_than_slots_are_left_out_from_the_last():
    schema = schema_of()
    codec = codec_of(schema, slots=2)
    assert codec.encode(labels_of(schema, spine(*LEVELS))).labels.placed.sum() == 8
    got = codec.decode(ideal(codec, labels_of(schema, spine(*LEVELS))), SHAPE)
    np.testing.assert_allclose(got.instances[0][1].points, COLUMN["B"], atol=TOLERANCE_PX)


def test_a_constant_count_is_named_in_order():
    schema = load_schema("spine_ap")
    chain = schema.chains[0]
    codec = codec_of(schema)
    points = torch.tensor(np.concatenate([quad(80, 12.2 + 14 * i) * (1, 1) for i in range(17)]), dtype=torch.float32)[
        None
    ]
    ones = torch.ones(1, 68)
    got = codec.decode(ideal(codec, Labels(points, ones, ones, ones, SHAPE)), SHAPE)
    assert tuple(one.level for one in got.instances[0]) == chain.levels
    assert (got.mean_in - points).norm(dim=-1).max() <= TOLERANCE_PX
    placed = ones.clone()
    placed[0, :4] = 0
    got = codec.decode(ideal(codec, Labels(points, placed, placed, ones, SHAPE)), SHAPE)
    assert [one.level for one in got.instances[0]] == [None] * 16


def test_levels_without_names_fill_their_places_in_order():
    schema = schema_of(anchor=None, named=False)
    labels = labels_of(schema, {"A": COLUMN["B"], "B": COLUMN["C"]})
    codec = codec_of(schema)
    got = codec.decode(ideal(codec, labels), SHAPE)
    assert [one.level for one in got.instances[0]] == [None, None]
    assert got.presence[0].round().tolist() == labels.placed[0].tolist()


@pytest.mark.parametrize(
    ("schema", "settings", "where"),
    [("hand", {}, "model.codec.name"), ("lumbar_lateral", {"chain": "ribs"}, "model.codec.chain")],
)
def test_an_anatomy_that_does_not_repeat_is_refused(schema, settings, where):
    with pytest.raises(ConfigError) as caught:
        codec_of(load_schema(schema), **settings)
    assert caught.value.where == where
    with pytest.raises(ConfigError, match="needs the schema"):
        build_codec(SlotsCodecConfig(), 5, 1)
