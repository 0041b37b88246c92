"""The chain codec: any number of vertebrae goes to maps and comes back in order, none invented and none twice."""

import math

import numpy as np
import pytest
import torch

from bregma.codecs.base import EXTENT, Labels
from bregma.codecs.chain import ChainCodec, ChainCodecConfig
from bregma.codecs.chain_naming import Node, arrange
from bregma.codecs.chain_naming import name as name_levels
from bregma.errors import ConfigError
from bregma.schema import load_schema, schema_from_dict

SHAPE = (256, 160)
TOLERANCE_PX = 0.05
PARTS = ("sup_ant", "sup_post", "inf_ant", "inf_post")
LEVELS = tuple(f"V{i}" for i in range(1, 13))


def schema_of(levels=LEVELS, anchor="S", **chain):
    """A chain of vertebrae above a sacrum with an endplate only."""
    own = {
        "name": "column",
        "levels": [*levels, *([anchor] if anchor else [])],
        "parts": {part: part for part in PARTS},
        **({"partial": {anchor: ["sup_ant", "sup_post"]}, "anchor": anchor} if anchor else {}),
        **chain,
    }
    return schema_from_dict({"name": "trial", "title": "Trial", "chains": [own]}, where="trial")


def quad(x, y, turn=0.0, width=15.0, height=9.0):
    """Corners in the order of the parts."""
    c, s = math.cos(turn), math.sin(turn)
    box = np.array([(-1, -1), (1, -1), (-1, 1), (1, 1)]) * (width / 2, height / 2)
    return box @ np.array([[c, s], [-s, c]]) + (x, y)


def column(count, *, bottom=230.4, step=17.3, x=80.2, bend=14.0):
    """Corners ``(count, 4, 2)``, cranial first, of a column with a bend, above a sacral endplate ``(2, 2)``."""
    rank = np.arange(count, 0, -1)
    y = bottom - step * rank
    return np.array([quad(x + bend * math.sin(r / 3), at, 0.1 * math.cos(r)) for r, at in zip(rank, y, strict=True)])


SACRUM = np.array([(73.3, 229.1), (89.8, 233.4)])


class Truth:
    """Labels of one image, by level."""

    def __init__(self, schema, shape=SHAPE):
        self.schema, self.shape, n = schema, shape, len(schema)
        self.points, self.placed, self.known = np.zeros((n, 2)), np.zeros(n), np.ones(n)

    def put(self, level, corners, parts=PARTS):
        for part, corner in zip(parts, corners, strict=False):
            i = self.schema.index(f"{level}_{part}")
            self.points[i], self.placed[i] = corner, 1.0
        return self

    def forget(self, level):
        for name in self.schema.names:
            if name.startswith(f"{level}_"):
                i = self.schema.index(name)
                self.placed[i] = self.known[i] = 0.0
        return self

    def labels(self):
        tensors = (torch.tensor(a, dtype=torch.float32)[None] for a in (self.points, self.placed, self.known))
        points, placed, known = tensors
        return Labels(points, placed, placed, known, self.shape)


def spine(count, schema=None, *, sacrum=True, at=None, shape=SHAPE):
    """The lowest ``count`` levels of a schema."""
    schema = schema or schema_of()
    truth = Truth(schema, shape)
    for level, corners in zip(LEVELS[len(LEVELS) - count :], column(count) if at is None else at, strict=True):
        truth.put(level, corners)
    return truth.put("S", SACRUM, PARTS[:2]) if sacrum else truth


def codec_of(schema, stride=1, **settings):
    return ChainCodec(ChainCodecConfig(**settings), len(schema), stride, schema)


def ideal(codec, labels):
    """What a perfect network would answer."""
    target = codec.encode(labels)
    maps = target.maps
    if codec.config.activation == "sigmoid":
        maps = torch.logit(maps.clamp(1e-30, 1 - 1e-6)) + math.log(9)
    return {"maps": torch.cat([maps, target.fields], 1)}


def decoded(codec, truth):
    return codec.decode(ideal(codec, truth.labels()), truth.shape)


def errors_px(codec, truth):
    """Distances of the placed landmarks, and the presence of all."""
    got = decoded(codec, truth)
    away = np.linalg.norm(got.mean_in[0].numpy() - truth.points, axis=1)
    return away[truth.placed > 0], got


@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("count", range(1, 13))
def test_any_number_of_vertebrae_comes_back_by_name(count, stride, activation):
    truth = spine(count)
    away, got = errors_px(codec_of(truth.schema, stride, activation=activation), truth)
    assert away.max() <= TOLERANCE_PX
    presence = got.presence[0].numpy()
    assert (presence[truth.placed > 0] > 0.8).all()
    assert (presence[truth.placed == 0] == 0).all()
    levels = [one.level for one in got.instances[0]]
    assert levels == [*LEVELS[12 - count :], "S"]


def test_sub_pixel_places_come_back_wherever_they_fall():
    rng = np.random.default_rng(0)
    for _ in range(6):
        at = column(4) + rng.uniform(-0.5, 0.5, (4, 4, 2))
        away, _ = errors_px(codec_of(schema_of()), spine(4, at=at))
        assert away.max() <= TOLERANCE_PX


@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_a_vertebra_on_the_border_comes_back(activation):
    at = np.array([quad(7.0, 180.0), quad(9.0, 200.0)])
    at[:, [0, 2], 0] = -0.5
    truth = spine(2, at=at, sacrum=False).put("S", [(3.0, 215.2), (19.7, 217.0)], PARTS[:2])
    away, _ = errors_px(codec_of(schema_of(), activation=activation), truth)
    assert away.max() <= TOLERANCE_PX


def test_of_a_vertebra_cut_by_the_border_the_visible_parts_come_back():
    truth = spine(2, at=np.array([quad(80, 3.0), quad(80, 20.0)]), sacrum=False)
    truth.put("S", [(72.0, 31.0), (88.0, 33.0)], PARTS[:2])
    for part in PARTS[:2]:
        truth.placed[truth.schema.index(f"V11_{part}")] = 0.0
    away, got = errors_px(codec_of(truth.schema), truth)
    assert away.max() <= TOLERANCE_PX
    assert [one.level for one in got.instances[0]] == ["V11", "V12", "S"]
    presence = got.presence[0].numpy()
    assert (presence[[truth.schema.index(f"V11_{part}") for part in PARTS[:2]]] < 0.5).all()


def test_a_corner_alone_is_no_vertebra():
    truth = spine(2)
    for part in PARTS[:3]:
        truth.placed[truth.schema.index(f"V11_{part}")] = 0.0
    got = decoded(codec_of(truth.schema), truth)
    assert [one.level for one in got.instances[0]] == ["V12", "S"]


def test_an_image_without_any_vertebra_gives_none():
    truth = Truth(schema_of())
    got = decoded(codec_of(truth.schema), truth)
    assert got.instances == ((),)
    assert (got.presence == 0).all()
    # A landmark that was not found may be anywhere: a uniform distribution over the input.
    assert got.mean_in[0, 0].tolist() == [79.5, 127.5]
    np.testing.assert_allclose(got.cov_in[0, 0].numpy(), np.diag([160**2 / 12, 256**2 / 12]), rtol=1e-6)


def test_without_the_anchor_vertebrae_are_found_but_not_named():
    truth = spine(5, sacrum=False)
    got = decoded(codec_of(truth.schema), truth)
    found = got.instances[0]
    assert [one.level for one in found] == [None] * 5
    assert (got.presence == 0).all()
    for one, corners in zip(found, column(5), strict=True):
        assert np.linalg.norm(one.points - corners, axis=1).max() <= TOLERANCE_PX


def test_the_anchor_alone_is_named():
    got = decoded(codec_of(schema_of()), spine(0))
    assert [one.level for one in got.instances[0]] == ["S"]


def test_a_chain_with_a_gap_keeps_its_names():
    truth = spine(6)
    for part in PARTS:
        truth.placed[truth.schema.index(f"V10_{part}")] = 0.0
    codec = codec_of(truth.schema)
    outputs = ideal(codec, truth.labels())
    # The network sees how far the next level is, though it misses the vertebra there.
    outputs["maps"][:, codec.layout.maps :] = codec.encode(spine(6).labels()).fields
    got = codec.decode(outputs, SHAPE)
    assert [one.level for one in got.instances[0]] == ["V7", "V8", "V9", "V11", "V12", "S"]
    away = np.linalg.norm(got.mean_in[0].numpy() - truth.points, axis=1)[truth.placed > 0]
    assert away.max() <= TOLERANCE_PX


def test_a_step_between_one_and_two_levels_leaves_the_rest_unnamed():
    # From V12 to the sacrum it is 48 px, from V11 to V12 72 px, and the network says 48 of both: one level or two.
    upper, lower = quad(81.55, 111.25), quad(81.55, 183.25)
    truth = spine(2, at=np.array([upper, lower]))
    codec = codec_of(truth.schema)
    outputs = ideal(codec, truth.labels())
    unit = 0.1 * SHAPE[0]
    down = codec.layout.maps + 2 * len(PARTS) + 1
    row = outputs["maps"][0, down, :150]
    outputs["maps"][0, down, :150] = torch.where(row != 0, row - 24.0 / unit, row)
    found = codec.decode(outputs, SHAPE).instances[0]
    assert [one.level for one in found][1:] == ["V12", "S"]
    assert found[0].level_probability < 0.6


@pytest.mark.parametrize("share", [0.5, 0.7, 1.4])
def test_one_way_that_is_misjudged_shifts_no_name(share):
    """The way from the last vertebra to the sacrum, which is the shortest, is told too short or too long."""
    truth = spine(5, at=column(5, step=24.0))
    codec = codec_of(truth.schema)
    outputs = ideal(codec, truth.labels())
    link = slice(codec.layout.maps + 2 * len(PARTS), None)
    # The field leads from each cell to the next centre; only the last vertebra's cells are changed.
    own = codec.encode(truth.labels()).field_cells[0, 2 * len(PARTS) :].clone()
    own[:, :195] = False
    ways = outputs["maps"][0, link]
    outputs["maps"][0, link] = torch.where(own, ways * share, ways)
    found = codec.decode(outputs, SHAPE).instances[0]
    assert [one.level for one in found] == [*LEVELS[7:], "S"]


def test_labels_out_of_order_are_drawn_alike():
    """Part maps are shared: which level is called what changes no map."""
    schema = schema_of(anchor=None)
    straight, mixed = Truth(schema), Truth(schema)
    corners = column(4)
    for level, own in zip(LEVELS[:4], corners, strict=True):
        straight.put(level, own)
    for level, own in zip(("V3", "V1", "V4", "V2"), corners, strict=True):
        mixed.put(level, own)
    codec = codec_of(schema)
    maps = [codec.encode(truth.labels()).maps for truth in (straight, mixed)]
    assert torch.equal(*maps)
    found = decoded(codec, straight).instances[0]
    assert [round(float(one.centre[1]), 1) for one in found] == sorted(round(float(c[:, 1].mean()), 1) for c in corners)


@pytest.mark.parametrize("lying", [False, True])
def test_order_follows_the_chain_and_not_the_image(lying):
    """A spine upside down or on its side runs the way its links lead."""
    truth = spine(6)
    shape = SHAPE
    if lying:
        truth.points = truth.points[:, ::-1].copy()
        truth.shape = shape = SHAPE[::-1]
    else:
        truth.points = np.array([SHAPE[1] - 1, SHAPE[0] - 1]) - truth.points
    got = codec_of(truth.schema).decode(ideal(codec_of(truth.schema), truth.labels()), shape)
    assert [one.level for one in got.instances[0]] == [*LEVELS[6:], "S"]


def test_a_chain_without_an_anchor_is_named_only_when_it_is_whole():
    levels = LEVELS[:5]
    schema = schema_of(levels, anchor=None)
    whole = Truth(schema)
    for level, own in zip(levels, column(5), strict=True):
        whole.put(level, own)
    assert [one.level for one in decoded(codec_of(schema), whole).instances[0]] == [*levels]
    for part in PARTS:
        whole.placed[schema.index(f"V1_{part}")] = 0.0
    got = decoded(codec_of(schema), whole)
    assert [one.level for one in got.instances[0]] == [None] * 4
    assert (got.presence == 0).all()


@pytest.mark.parametrize("share", [0.0, 0.25, 1.0])
def test_a_part_lies_between_its_peak_and_where_the_way_leads(share):
    truth = spine(5)
    codec = codec_of(truth.schema, 2, way_share=share)
    outputs = ideal(codec, truth.labels())
    first = codec.layout.maps
    # Every way to the first part leads 2 px further to the right, and 1 px further down.
    outputs["maps"][:, first] += 2 / (0.1 * max(SHAPE))
    outputs["maps"][:, first + 1] += 1 / (0.1 * max(SHAPE))
    got, plain = codec.decode(outputs, SHAPE), decoded(codec, truth)
    level = LEVELS[-1]
    moved = [truth.schema.index(f"{level}_{part}") for part in PARTS]
    away = (got.mean_in - plain.mean_in)[0, moved].numpy()
    np.testing.assert_allclose(away, [(2 * share, share), (0, 0), (0, 0), (0, 0)], atol=0.01)
    doubt = (got.cov_in - plain.cov_in)[0, moved].numpy()
    np.testing.assert_allclose(doubt[0], share * (1 - share) * np.array([(4, 2), (2, 1)]), atol=0.02)
    np.testing.assert_allclose(doubt[1:], 0, atol=0.01)


def test_ways_are_averaged_about_a_centre():
    truth = spine(5)
    codec = codec_of(truth.schema, 1, way_share=1.0)
    outputs = ideal(codec, truth.labels())
    first = codec.layout.maps
    noise = torch.randn(outputs["maps"][:, first:].shape, generator=torch.Generator().manual_seed(0))
    outputs["maps"][:, first:] += 3 * noise / (0.1 * max(SHAPE))
    away = (codec.decode(outputs, SHAPE).mean_in - decoded(codec, truth).mean_in)[0].numpy()
    placed = truth.placed.astype(bool) & [not name.startswith("S_") for name in truth.schema.names]
    # Of nine cells that weigh about the same.
    assert 0.8 < away[placed].std() < 1.4


def test_one_more_at_either_end_is_told_by_the_place():
    schema = schema_of(LEVELS[:5], anchor=None)
    truth, at = Truth(schema_of(LEVELS[:6], anchor=None)), column(6)
    for level, corners in zip(LEVELS, at, strict=False):
        truth.put(level, corners)
    y = (at.mean(axis=1)[:, 1] + 0.5) / SHAPE[0]
    for first in (0, 1):
        for stride in (1, 2):
            maps = ideal(codec_of(truth.schema, stride), truth.labels())["maps"]
            places = {"axis": "y", "mean": tuple(y[first : first + 5]), "sd": (0.02,) * 5}
            got = codec_of(schema, stride, places=places).decode({"maps": maps}, SHAPE)
            assert [one.level for one in got.instances[0]] == list(LEVELS[:5])
            assert np.linalg.norm(got.mean_in[0].numpy() - at[first : first + 5].reshape(-1, 2), axis=1).max() < 0.1
            without = codec_of(schema, stride, places=places, by_place=False).decode({"maps": maps}, SHAPE)
            # They are shares of the image, which need not fill the input.
            upper, lower = 0.1 * SHAPE[0], 0.95 * SHAPE[0]
            extent = torch.tensor([[-0.5, upper - 0.5, SHAPE[1] - 0.5, lower - 0.5]])
            at_y = tuple((y[first : first + 5] * SHAPE[0] - upper) / (lower - upper))
            cut = {"axis": "y", "mean": at_y, "sd": (0.02 / 0.85,) * 5}
            same = codec_of(schema, stride, places=cut).decode({"maps": maps, EXTENT: extent}, SHAPE)
            assert [one.level for one in same.instances[0]] == list(LEVELS[:5])
            for one, other in zip(same.instances[0], got.instances[0], strict=True):
                assert one.level_probability == pytest.approx(other.level_probability, rel=1e-4)
            # Six are alike, whichever of them the cells of the maps may favour.
            assert without.instances == codec_of(schema, stride).decode({"maps": maps}, SHAPE).instances


def test_places_of_another_chain_are_refused():
    with pytest.raises(ConfigError, match="has other levels than its places") as caught:
        codec_of(schema_of(), places={"axis": "y", "mean": (0.1, 0.2), "sd": (0.1, 0.1)})
    assert "model.codec.places" in str(caught.value)


def test_a_chain_that_has_no_names_fills_its_places_in_order():
    schema = schema_of(LEVELS[:5], anchor=None, named=False)
    truth = Truth(schema)
    corners = column(3)
    for level, own in zip(LEVELS[:3], corners, strict=True):
        truth.put(level, own)
    away, got = errors_px(codec_of(schema), truth)
    assert away.max() <= TOLERANCE_PX
    assert [one.level for one in got.instances[0]] == [None] * 3
    assert (got.presence[0].numpy() > 0.5).sum() == 12


def test_a_blob_beside_the_spine_is_not_taken_for_a_vertebra():
    truth = spine(5)
    codec = codec_of(truth.schema)
    outputs = ideal(codec, truth.labels())
    stray = spine(1, sacrum=False, at=np.array([quad(25.0, 150.0)]))
    extra = ideal(codec, stray.labels())["maps"]
    near = codec.encode(stray.labels()).field_cells[0]
    maps = codec.layout.maps
    outputs["maps"][:, :maps] = torch.maximum(outputs["maps"][:, :maps], extra[:, :maps] - 1.5)
    outputs["maps"][0, maps:] = torch.where(near, extra[0, maps:], outputs["maps"][0, maps:])
    assert [one.level for one in codec.decode(outputs, SHAPE).instances[0]] == [*LEVELS[7:], "S"]


def test_two_peaks_at_one_vertebra_count_once():
    truth = spine(3)
    codec = codec_of(truth.schema)
    target = codec.encode(truth.labels())
    centre = len(PARTS)
    maps = target.maps.clone()
    maps[:, centre] = torch.maximum(maps[:, centre], 0.9 * maps[:, centre].roll(6, dims=-1))
    ways = target.fields.clone().unflatten(1, (-1, 2))
    # The second centre leads to the same corners.
    ways[:, :, 0] = torch.where(ways[:, :, 0].roll(6, -1) != 0, ways[:, :, 0].roll(6, -1) - 6 / 25.6, ways[:, :, 0])
    ways[:, :, 1] = torch.where(ways[:, :, 1].roll(6, -1) != 0, ways[:, :, 1].roll(6, -1), ways[:, :, 1])
    logits = torch.logit(maps.clamp(1e-30, 1 - 1e-6)) + math.log(9)
    got = codec.decode({"maps": torch.cat([logits, ways.flatten(1, 2)], 1)}, SHAPE)
    assert [one.level for one in got.instances[0]] == [*LEVELS[9:], "S"]


def test_vertebrae_above_the_first_level_are_not_the_schemas():
    schema = schema_of(LEVELS[9:])
    truth, above = Truth(schema), Truth(schema_of())
    corners = column(6)
    for level, own in zip(LEVELS[9:], corners[3:], strict=True):
        truth.put(level, own)
    truth.put("S", SACRUM, PARTS[:2])
    for level, own in zip(LEVELS[6:], corners, strict=True):
        above.put(level, own)
    above.put("S", SACRUM, PARTS[:2])
    seen = ideal(codec_of(above.schema), above.labels())
    got = codec_of(schema).decode(seen, SHAPE)
    assert [one.level for one in got.instances[0]] == [*LEVELS[9:], "S"]


def test_unlabelled_levels_are_not_judged_and_absent_ones_are():
    truth = spine(4)
    codec = codec_of(truth.schema)
    centre = len(PARTS)
    known = codec.encode(truth.labels()).cells[0, centre]
    assert known.all()
    truth.forget("V8")
    for level in LEVELS[:7]:
        truth.forget(level)
    cells = codec.encode(truth.labels()).cells[0, centre].numpy()
    bottom = column(4)[0][2:, 1].max()
    assert not cells[: int(bottom - 40)].any()
    assert cells[int(bottom) :].all()
    # The anchor's own maps say where it is.
    assert codec.encode(truth.labels()).cells[0, centre + 1].all()


def test_beyond_a_full_chain_there_may_be_more():
    truth = spine(12, at=column(12, bottom=250.0, step=15.0))
    truth.put("S", SACRUM + np.array([0, 18]), PARTS[:2])
    cells = codec_of(truth.schema).encode(truth.labels()).cells[0, 0, :, 70:100].numpy()
    top = column(12, bottom=250.0, step=15.0)[0].mean(axis=0)
    assert not cells[: int(top[1] - 25)].any()
    assert cells[int(top[1]) :].all()


def test_an_image_without_any_label_judges_nothing():
    truth = Truth(schema_of())
    for level in (*LEVELS, "S"):
        truth.forget(level)
    assert not codec_of(truth.schema).encode(truth.labels()).cells.any()


def test_a_mirrored_spine_swaps_the_parts_that_the_schema_says():
    schema = load_schema("spine_ap")
    truth = Truth(schema)
    parts = ("TL", "TR", "BL", "BR")
    for level, own in zip(schema.chains[0].levels, column(17, step=13.5, bottom=240.0), strict=True):
        truth.put(level, own, parts)
    codec = codec_of(schema)
    straight = codec.encode(truth.labels()).maps
    order = list(schema.flip_permutation)
    truth.points = np.array([SHAPE[1] - 1, 0]) + truth.points[order] * (-1, 1)
    mirrored = codec.encode(truth.labels()).maps
    # Top left and top right change places, and so do bottom left and bottom right; centres stay centres.
    torch.testing.assert_close(mirrored.flip(-1), straight[:, [1, 0, 3, 2, 4]], atol=2e-4, rtol=0)
    away, got = errors_px(codec, truth)
    assert away.max() <= TOLERANCE_PX
    assert [one.level for one in got.instances[0]] == [*schema.chains[0].levels]


def test_landmarks_outside_the_chain_have_maps_of_their_own():
    schema = schema_from_dict(
        {
            "name": "trial",
            "title": "Trial",
            "landmarks": [{"name": "hip", "label": "Hip"}],
            "chains": [{"name": "column", "levels": list(LEVELS[9:]), "parts": {part: part for part in PARTS}}],
        },
        where="trial",
    )
    truth = Truth(schema)
    truth.points[0], truth.placed[0] = (40.3, 210.7), 1.0
    for level, own in zip(LEVELS[9:], column(3), strict=True):
        truth.put(level, own)
    away, got = errors_px(codec_of(schema), truth)
    assert away.max() <= TOLERANCE_PX
    assert got.presence[0, 0] > 0.8


@pytest.mark.parametrize("value", [0.0, -5.0, 1e4])
@pytest.mark.parametrize("activation", ["sigmoid", "linear"])
def test_maps_that_say_nothing_give_finite_landmarks(activation, value):
    schema = load_schema("lumbar_lateral")
    codec = codec_of(schema, 4, activation=activation)
    got = codec.decode({"maps": torch.full((2, codec.outputs.maps, 32, 24), value)}, (128, 96))
    assert torch.isfinite(got.mean_in).all()
    assert torch.isfinite(got.cov_in).all()
    assert (torch.linalg.eigvalsh(got.cov_in) > 0).all()


def test_noise_gives_finite_landmarks_and_no_more_instances_than_levels():
    schema = load_schema("lumbar_lateral")
    codec = codec_of(schema, 2)
    noise = 3 * torch.randn(2, codec.outputs.maps, 64, 48, generator=torch.Generator().manual_seed(0))
    got = codec.decode({"maps": noise}, (128, 96))
    assert torch.isfinite(got.mean_in).all()
    for found in got.instances:
        levels = [one.level for one in found if one.level]
        assert len(levels) == len(set(levels))


def test_anatomies_without_a_chain_are_refused():
    with pytest.raises(ConfigError, match="repeated structure"):
        codec_of(load_schema("chest"))
    with pytest.raises(ConfigError, match="no chain 'ribs'"):
        codec_of(load_schema("lumbar_lateral"), chain="ribs")


def test_of_an_anchor_cut_by_the_border_the_visible_part_names_the_others():
    truth = spine(3, sacrum=False).put("S", SACRUM[1:], ["sup_post"])
    got = decoded(codec_of(truth.schema), truth)
    assert [one.level for one in got.instances[0]] == [*LEVELS[-3:], "S"]
    ant, post = (truth.schema.index(f"S_{part}") for part in PARTS[:2])
    assert np.linalg.norm(got.mean_in[0, post].numpy() - SACRUM[1]) <= TOLERANCE_PX
    assert got.presence[0, ant] < 0.5 < got.presence[0, post]


def test_parts_read_a_little_beyond_the_border_count_as_seen():
    """Maps that still rise at the border, as those of a point beyond it do."""
    schema = schema_of(anchor=None)
    codec = codec_of(schema, activation="linear")
    truth = Truth(schema).put("V1", quad(80.0, 20.0))
    outputs = ideal(codec, truth.labels())
    parts = len(PARTS)
    outputs["maps"][:, :parts] = 0.0
    rows = torch.exp(-0.5 * (torch.arange(6) + 2.0) ** 2 / 4.0)
    for part, x in ((2, 73), (3, 87)):
        columns = torch.exp(-0.5 * (torch.arange(SHAPE[1]) - x) ** 2 / 4.0)
        outputs["maps"][0, part, :6] = rows[:, None] * columns
    # The centre and its ways lie as they would for a body of which two corners are cut off.
    outputs["maps"][:, parts] = 0.0
    outputs["maps"][0, parts, 0, 80] = 1.0
    outputs["maps"][0, parts + 1 :, 0, 80] = torch.tensor(
        [[-7.0, -11.0], [7.0, -11.0], [-7.0, -1.0], [7.0, -1.0], [0.0, 15.0]]
    ).flatten() / (0.1 * max(SHAPE))
    (one,) = codec.decode(outputs, SHAPE).instances[0]
    assert (one.points[2:, 1] < -0.5).all()
    assert (one.presence >= 0.5).tolist() == [False, False, True, True]


@pytest.mark.parametrize("last", [(346.0, 397.0), (346.0, 380.0)])
def test_a_vertebra_that_slipped_off_the_sacrum_stays(last):
    """A slip of the whole endplate: the network says that the next level lies below, as it nearly always does."""
    centres = [(305.0, 225.0), (295.0, 278.0), (290.0, 332.0), (298.0, 386.0)]
    nodes = [Node(i, np.array(at), np.array([-4.0, 52.0]), 0.8) for i, at in enumerate(centres)]
    anchor = Node(-1, np.array(last), None, 0.9)
    ordered = arrange([anchor, *nodes], anchor_last=True)
    assert [node.index for node in ordered] == [0, 1, 2, 3, -1]
    named = name_levels(ordered, levels=7, anchor=6)
    assert [one.rank for one in named] == [2, 3, 4, 5, 6]


def test_a_slip_of_more_than_a_body_is_no_level_passed_over():
    """Centres and links in cells that a network gave for L1 to S1 of a phantom with L4 off L5."""
    centres = [(65.1, 14.4), (65.6, 35.0), (64.8, 56.9), (60.6, 77.5), (35.8, 88.7)]
    links = [(0.8, 18.0), (-0.8, 18.9), (-2.9, 18.8), (-7.0, 19.5), (-8.7, 10.4)]
    nodes = [
        Node(i, np.array(at), np.array(link), 0.7) for i, (at, link) in enumerate(zip(centres, links, strict=True))
    ]
    ordered = arrange([*nodes, Node(-1, np.array([28.4, 100.7]), None, 0.9)], anchor_last=True)
    named = name_levels(ordered, levels=7, anchor=6)
    assert [(one.index, one.rank) for one in named] == [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5), (-1, 6)]


def test_what_lies_below_the_last_level_is_no_level():
    centres = [(100.0, 100.0), (100.0, 150.0), (100.0, 235.0)]
    nodes = [Node(i, np.array(at), np.array([0.0, 50.0]), 0.9 - 0.1 * i) for i, at in enumerate(centres)]
    ordered = arrange([*nodes, Node(-1, np.array([100.0, 190.0]), None, 0.9)], anchor_last=True)
    assert [node.index for node in ordered] == [0, 1, -1]
