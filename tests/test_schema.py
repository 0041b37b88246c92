from __future__ import annotations

import csv
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bregma.config import save_yaml
from bregma.errors import SchemaError
from bregma.schema import LandmarkSchema, builtin_schemas, expand, load_schema, schema_from_dict

GOOD = """\
name: toy
title: A toy
landmarks:
  - {name: left, label: Left}
  - {name: right, label: Right}
  - {name: top, label: Top}
mirror_pairs:
  - [left, right]
flip: swap
chains:
  - name: spine
    levels: [L4, L5, S1]
    parts: {ant: front, post: back}
    partial: {S1: [ant]}
    optional: [L4]
    anchor: S1
edges:
  - [left, top]
reference_length: [left, right, 50.0]
grades:
  - name: size
    edges: [1, 2]
    labels: [small, middle, large]
    source: test
measurements:
  - name: width
    label: Width
    primitive: distance
    points: {a: left, b: right}
    unit: mm
    grade: size
  - name: depth
    label: Depth
    primitive: distance
    points: {a: "{level}_ant", b: "{level}_post"}
    along: spine
    unit: mm
"""

# What to replace in the good file, by what, the line that must be named, and what must be said.
FAULTS = [
    (
        "mirror_pairs:\n  - [left, right]",
        "mirror_pairs:\n  - [left, rihgt]",
        8,
        "'rihgt' in mirror_pairs is not a landmark",
    ),
    ("  - [left, top]", "  - [left, tpo]", 18, "'tpo' in edges is not a landmark"),
    ("[left, right, 50.0]", "[left, wrong, 50.0]", 19, "'wrong' in reference_length is not a landmark"),
    ("[left, right, 50.0]", "[left, left, 50.0]", 19, "two different landmarks"),
    ("[left, right, 50.0]", "[left, right, 0]", 19, "greater than 0"),
    ("  - [left, right]\nflip", "  - [left, right]\n  - [top, left]\nflip", 9, "'left' occurs in mirror_pairs twice"),
    ("  - [left, right]\nflip", "  - [left, left]\nflip", 8, "at least two different landmarks"),
    ("flip: swap", "flip: swap\nexchangeable:\n  - [top]", 11, "at least two different landmarks"),
    (
        "flip: swap",
        "flip: swap\nexchangeable:\n  - [top, left]\n  - [right, top]",
        12,
        "'top' occurs in exchangeable twice",
    ),
    (
        "flip: swap",
        "flip: swap\noutlines:\n  - {name: o, ellipse: [[left, right], [top, tpo]]}",
        11,
        "the outline 'o' needs 'tpo', which is not a landmark",
    ),
    (
        "flip: swap",
        "flip: swap\noutlines:\n  - {name: o, ellipse: [[left, right], [top, left]]}",
        11,
        "the outline 'o' needs 'left' 2 times",
    ),
    ("flip: swap", "flip: swap\noutlines:\n  - {name: o, ellipse: [[left, right]]}", 11, "outlines.0.ellipse"),
    ("mirror_pairs:\n  - [left, right]\n", "", 7, "no mirror_pairs are declared"),
    ("flip: swap", "flip: sometimes", 9, "got 'sometimes'"),
    ("  - {name: top, label: Top}", "  - {name: left, label: Top}", 6, "'left' is declared 2 times"),
    ("  - {name: top, label: Top}", "  - {name: top, lable: Top}", 6, "unknown setting 'landmarks.2.lable'"),
    (
        "label: Right}",
        "label: Right, nickname: R}",
        5,
        "unknown setting 'landmarks.1.nickname' (known here: code, label, name)",
    ),
    ("name: top,", "name: 3rd top,", 6, "got '3rd top'"),
    ("title: A toy", "title: A toy\ntitel: B", 3, "unknown setting 'titel' (known here: chains,"),
    ("title: A toy", "title: A toy\ntitle: B", 3, "the key 'title' occurs twice"),
    ("title: A toy\n", "", 1, "setting 'title': Field required"),
    ("levels: [L4, L5, S1]", "levels: [L4, L5, L4, S1]", 12, "the level 'L4' of chain 'spine' is listed 2 times"),
    ("partial: {S1: [ant]}", "partial: {S2: [ant]}", 14, "'S2' is not a level of chain 'spine'"),
    ("partial: {S1: [ant]}", "partial: {S1: [left]}", 14, "'left' is not a part of chain 'spine'"),
    ("partial: {S1: [ant]}", "partial: {S1: []}", 14, "the level 'S1' of chain 'spine' has no parts"),
    ("optional: [L4]", "optional: [L3]", 15, "'L3' is not a level of chain 'spine'"),
    ("anchor: S1", "anchor: S2", 16, "the anchor 'S2' is not a level"),
    ("anchor: S1", "codes: {C7: {scheme: SCT, value: '1', meaning: C7}}", 16, "'C7' is not a level"),
    ("edges:\n  - [", "  - {name: spine, levels: [C1], parts: {a: b}}\nedges:\n  - [", 17, "another chain 'spine'"),
    (
        "edges:\n  - [",
        "  - {name: neck, levels: [L4], parts: {ant: b}}\nedges:\n  - [",
        17,
        "'L4_ant' belongs to the chains",
    ),
    ("edges: [1, 2]", "edges: [2, 1]", 22, "the edges of grade 'size' must ascend"),
    ("edges: [1, 2]", "edges: [1, 1]", 22, "the edges of grade 'size' must ascend"),
    ("edges: [1, 2]", "edges: [1, .nan]", 22, "finite number"),
    ("edges: [1, 2]", "edges: [1]", 21, "needs one label more"),
    ("edges: [1, 2]", "edges: [-1, 2]\n    absolute: true", 22, "its edges must be positive"),
    ("    source: test", "", 21, "setting 'grades.0.source': Field required"),
    (
        "measurements:\n",
        "  - {name: size, edges: [1], labels: [a, b], source: x}\nmeasurements:\n",
        25,
        "another grade scale 'size'",
    ),
    ("{a: left, b: right}", "{a: left, b: wrong}", 29, "measurement 'width' needs 'wrong', which is not a landmark"),
    ("grade: size", "grade: seize", 31, "uses the grade 'seize', which is not declared"),
    ("along: spine", "along: spin", 36, "goes along 'spin', which is not a chain"),
    ('"{level}_ant"', '"{level}_and"', 32, "measurement 'depth' fits no landmarks"),
    ('{a: "{level}_ant", b: "{level}_post"}', "{a: L4_ant, b: L4_post}", 35, "names no {level}"),
    ("name: depth", "name: width", 32, "another measurement 'width'"),
    ("unit: mm\n    grade", "unit: inch\n    grade", 30, "got 'inch'"),
    ("title: A toy", "title: [A toy", 3, "is not valid YAML"),
    ("title: A toy", "title: *nobody", 2, "is not valid YAML"),
    ("title: A toy", "title: 2024-13-45", None, "holds a value that cannot be read"),
    ("title: A toy", "title: !!python/object/apply:os.system ['true']", 2, "is not valid YAML"),
    ("title: A toy", "title: &me [*me]", 2, "an entry holds itself"),
]


def read_rows(path: Path) -> list[list[str]]:
    with path.open(newline="") as handle:
        return list(csv.reader(handle))


def toy(**changes: Any) -> LandmarkSchema:
    data = {"name": "toy", "title": "toy", "landmarks": [{"name": n, "label": n} for n in "abc"]}
    return schema_from_dict({**data, **changes}, where="toy")


def test_the_good_file_is_good(tmp_path: Path) -> None:
    path = tmp_path / "toy.yaml"
    path.write_text(GOOD)
    schema = load_schema(path)
    assert schema.names == ("left", "right", "top", "L4_ant", "L4_post", "L5_ant", "L5_post", "S1_ant")
    assert schema.landmarks[4].label == "L4 back"
    assert schema.flip_permutation == (1, 0, 2, 3, 4, 5, 6, 7)
    assert repr(schema) == str(schema) == "LandmarkSchema('toy', 8 landmarks)"


@pytest.mark.parametrize(("old", "new", "line", "message"), FAULTS)
def test_a_fault_is_named_with_its_line(tmp_path: Path, old: str, new: str, line: int | None, message: str) -> None:
    assert GOOD.count(old) == 1
    path = tmp_path / "toy.yaml"
    path.write_text(GOOD.replace(old, new))
    with pytest.raises(SchemaError) as caught:
        load_schema(path)
    assert message in str(caught.value)
    assert caught.value.where == (f"{path}, line {line}" if line else str(path))


class TestLoading:
    def test_an_unknown_anatomy_names_those_that_exist(self) -> None:
        with pytest.raises(SchemaError, match=r"no built-in anatomy 'foot'; expected one of cephalometric, chest,"):
            load_schema("foot")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(SchemaError, match=r"foot\.yaml: cannot be read \(No such file"):
            load_schema(tmp_path / "foot.yaml")

    @pytest.mark.parametrize("text", ["", "just words\n", "- a\n- b\n"])
    def test_a_file_that_holds_no_mapping(self, tmp_path: Path, text: str) -> None:
        path = tmp_path / "toy.yaml"
        path.write_text(text)
        with pytest.raises(SchemaError, match="holds no settings"):
            load_schema(path)

    def test_a_file_that_is_no_text(self, tmp_path: Path) -> None:
        path = tmp_path / "toy.yaml"
        path.write_bytes(b"\xff\xfe\x00")
        with pytest.raises(SchemaError, match="not UTF-8"):
            load_schema(path)

    def test_no_landmarks_at_all(self) -> None:
        with pytest.raises(SchemaError, match="declares no landmarks, no chains and no quantities"):
            toy(landmarks=[])

    @pytest.mark.parametrize("name", builtin_schemas())
    def test_plain_data_makes_the_same_schema_again(self, name: str, tmp_path: Path) -> None:
        schema = load_schema(name)
        assert schema_from_dict(json.loads(json.dumps(schema.to_dict())), where="json") == schema
        save_yaml(tmp_path / "copy.yaml", schema.to_dict())
        assert load_schema(tmp_path / "copy.yaml") == schema


class TestParts:
    def test_index_and_lookups_name_what_is_missing(self) -> None:
        schema = toy()
        assert schema.index("b") == 1
        for look in (schema.index, schema.chain, schema.grade):
            with pytest.raises(SchemaError, match=r"schema 'toy'.*'z'"):
                look("z")

    @pytest.mark.parametrize(("flip", "order"), [("swap", (1, 0, 2)), ("keep", (0, 1, 2)), ("never", (0, 1, 2))])
    def test_only_swap_changes_names(self, flip: str, order: tuple[int, ...]) -> None:
        assert toy(flip=flip, mirror_pairs=[["a", "b"]]).flip_permutation == order

    def test_listed_chain_landmarks_keep_their_place_and_label(self) -> None:
        chain = {"name": "c", "levels": ["L1"], "parts": {"x": "X", "y": "Y"}}
        listed = [{"name": "L1_y", "label": "own words"}, {"name": "q", "label": "q"}]
        schema = toy(landmarks=listed, chains=[chain])
        assert schema.names == ("L1_y", "q", "L1_x")
        assert schema.landmarks[0].label == "own words"

    def test_expand_per_pair_leaves_out_levels_that_lack_a_part(self) -> None:
        chain = {"name": "c", "levels": ["L4", "L5", "S1"], "parts": {"t": "T", "b": "B"}, "partial": {"S1": ["t"]}}
        pair = {"name": "gap", "label": "gap", "primitive": "distance", "along": "c", "unit": "mm"}
        schema = toy(
            chains=[chain],
            measurements=[
                {**pair, "points": {"a": "{upper}_b", "b": "{lower}_t"}},
                {**pair, "name": "height", "points": {"a": "{level}_t", "b": "{level}_b"}},
                {**pair, "name": "whole", "along": None, "points": {"a": "L4_t", "b": "S1_t"}},
            ],
        )
        gap, height, whole = (list(expand(schema, spec)) for spec in schema.measurements)
        assert gap == [("L4-L5", {"a": "L4_b", "b": "L5_t"}), ("L5-S1", {"a": "L5_b", "b": "S1_t"})]
        assert height == [("L4", {"a": "L4_t", "b": "L4_b"}), ("L5", {"a": "L5_t", "b": "L5_b"})]
        assert whole == [(None, {"a": "L4_t", "b": "S1_t"})]


SIZES = {
    "cephalometric": 19,
    "chest": 15,
    "chest_ctr": 19,
    "fetal_head": 4,
    "hand": 37,
    "lumbar_lateral": 26,
    "lumbar_mri": 20,
    "spine_ap": 68,
}
FLIPS = {"chest": "swap", "chest_ctr": "swap", "spine_ap": "swap", "cephalometric": "never"}
CORNERS = ("sup_ant", "sup_post", "inf_ant", "inf_post")

# Positions in the published order whose meaning the publishers give, or that the pictures show beyond doubt.
ORDERS = {
    "hand": {0: "ulna_metaphysis_ulnar", 4: "radius_metaphysis_radial", 10: "capitate_proximal", 13: "mc5_base"}
    | {17: "mc1_base", 20: "thumb_tip", 24: "index_tip", 28: "middle_tip", 32: "ring_tip", 36: "little_tip"},
    "chest": {0: "axis_top", 1: "axis_bottom", 2: "lung_right_upper", 3: "lung_left_upper", 8: "axis_upper"}
    | {10: "axis_lower", 11: "apex_right", 12: "apex_left", 13: "costophrenic_right", 14: "costophrenic_left"},
    "fetal_head": dict(enumerate(("ofd_1", "ofd_2", "bpd_1", "bpd_2"))),
    "spine_ap": {0: "T1_TL", 1: "T1_TR", 2: "T1_BL", 3: "T1_BR", 48: "L1_TL", 67: "L5_BR"},
    "cephalometric": {0: "sella", 1: "nasion", 2: "orbitale", 3: "porion", 4: "subspinale", 5: "supramentale"}
    | {6: "pogonion", 7: "menton", 8: "gnathion", 9: "gonion", 10: "lower_incisor", 11: "upper_incisor"}
    | {12: "upper_lip", 13: "lower_lip", 14: "subnasale", 15: "soft_tissue_pogonion", 16: "posterior_nasal_spine"}
    | {17: "anterior_nasal_spine", 18: "articulare"},
    "lumbar_mri": {i: f"L{i // 4 + 1}_{CORNERS[i % 4]}" for i in range(20)},
    "lumbar_lateral": {0: "T12_sup_ant", 4: "L1_sup_ant", 23: "L5_inf_post", 24: "S1_sup_ant", 25: "S1_sup_post"},
}


class TestShippedAnatomies:
    def test_sizes(self) -> None:
        assert {name: len(load_schema(name)) for name in builtin_schemas()} == SIZES

    @pytest.mark.parametrize("name", builtin_schemas())
    def test_name_and_flip(self, name: str) -> None:
        schema = load_schema(name)
        assert schema.name == name
        assert schema.flip == FLIPS.get(name, "keep")
        assert schema.view

    @pytest.mark.parametrize("name", ORDERS)
    def test_published_order(self, name: str) -> None:
        schema = load_schema(name)
        assert {index: schema.names[index] for index in ORDERS[name]} == ORDERS[name]

    @pytest.mark.parametrize("name", ["chest", "chest_ctr", "spine_ap"])
    def test_everything_with_a_side_has_a_partner(self, name: str) -> None:
        """Partners differ only in the word for their side, and nothing that has a side lacks a partner."""
        schema = load_schema(name)
        sides = [("right", "left"), ("TL", "TR"), ("BL", "BR")]
        for one, other in schema.mirror_pairs:
            assert any(one.replace(first, second) == other != one for first, second in sides)
        paired = {point for pair in schema.mirror_pairs for point in pair}
        assert paired == {point for point in schema.names if not point.startswith("axis")}

    def test_chest_ctr_begins_with_the_points_of_chest(self) -> None:
        assert load_schema("chest_ctr").names[:15] == load_schema("chest").names

    def test_reference_length_of_the_hand(self) -> None:
        hand = load_schema("hand")
        assert hand.reference_length == (hand.names[0], hand.names[4], 50.0)

    def test_ends_of_a_diameter_are_exchangeable(self) -> None:
        assert load_schema("fetal_head").exchangeable == (("ofd_1", "ofd_2"), ("bpd_1", "bpd_2"))

    def test_lumbar_chain(self) -> None:
        (chain,) = load_schema("lumbar_lateral").chains
        assert chain.levels == ("T12", "L1", "L2", "L3", "L4", "L5", "S1")
        assert (chain.anchor, chain.optional, chain.parts_of("S1")) == ("S1", ("T12",), ("sup_ant", "sup_post"))

    @pytest.mark.parametrize("name", builtin_schemas())
    def test_codes_exist_in_the_published_dictionary(self, name: str) -> None:
        """Every code and its meaning is one that DICOM's content mapping resource lists, as pydicom carries it."""
        from pydicom.sr._concepts_dict import concepts

        schema = load_schema(name)
        codes = [landmark.code for landmark in schema.landmarks] + [spec.code for spec in schema.measurements]
        for code in filter(None, codes):
            meanings = {entry[code.value][0].lower() for entry in concepts[code.scheme].values() if code.value in entry}
            assert code.meaning.lower() in meanings

    @pytest.mark.parametrize("name", builtin_schemas())
    def test_every_grade_is_used_and_every_label_differs(self, name: str) -> None:
        schema = load_schema(name)
        assert {scale.name for scale in schema.grades} == {spec.grade for spec in schema.measurements if spec.grade}
        labels = [landmark.label for landmark in schema.landmarks]
        assert len(set(labels)) == len(labels)

    @pytest.mark.parametrize("name", builtin_schemas())
    def test_edges_are_lines(self, name: str) -> None:
        edges = [frozenset(edge) for edge in load_schema(name).edges]
        assert all(len(edge) == 2 for edge in edges)
        assert len(set(edges)) == len(edges)


@pytest.mark.data
class TestPublishedFiles:
    def test_header_of_the_mri_corners(self, data_root: Path) -> None:
        header = read_rows(data_root / "spine_mri" / "corners.csv")[0][1:]
        assert tuple(column.removesuffix("_x") for column in header[::2]) == load_schema("lumbar_mri").names

    def test_header_of_the_fetal_diameters(self, data_root: Path) -> None:
        header = read_rows(data_root / "fetal_head_us" / "Head_Train.csv")[0][1:]
        assert tuple(column.removesuffix("_x") for column in header[::2]) == load_schema("fetal_head").names

    def test_hand_fingers_run_outwards(self, data_root: Path) -> None:
        """From its metacarpal base to its tip each finger's points lie ever higher in the picture, in every hand."""
        schema = load_schema("hand")
        rows = read_rows(data_root / "hand_xray" / "all_coordinates.csv")
        for digit, finger in ((2, "index"), (3, "middle"), (4, "ring"), (5, "little")):
            names = [f"mc{digit}_base", *(f"{finger}_{joint}" for joint in ("mcp", "pip", "dip", "tip"))]
            columns = [2 + 2 * schema.index(name) for name in names]
            for row in rows:
                heights = [float(row[column]) for column in columns]
                assert all(lower > upper for lower, upper in pairwise(heights)), (row[0], finger)

    def test_chest_sides(self, data_root: Path) -> None:
        """The patient's right is on the left of the picture, in every image."""
        schema = load_schema("chest")
        rows = read_rows(data_root / "chest_xray" / "coordenadas_train.csv")
        for row in rows:
            for right, left in schema.mirror_pairs:
                assert float(row[1 + 2 * schema.index(right)]) < float(row[1 + 2 * schema.index(left)])
