"""What a schema says about which landmarks belong together."""

import numpy as np
import pytest

from bregma.networks.relations import Relation, relations
from bregma.schema import builtin_schemas, load_schema, schema_from_dict

SAME, NEIGHBOUR, DISTANT = Relation


def lookup(name):
    schema = load_schema(name)
    table = relations(schema)
    return lambda a, b: Relation(table[schema.index(a), schema.index(b)])


@pytest.mark.parametrize("name", builtin_schemas())
def test_every_anatomy_has_a_symmetric_table_whose_diagonal_is_the_part_itself(name):
    schema = load_schema(name)
    table = relations(schema)
    assert table.shape == (len(schema), len(schema))
    assert np.array_equal(table, table.T)
    assert (np.diag(table) == SAME).all()
    assert set(np.unique(table)) <= set(Relation)
    assert all(table[schema.index(a), schema.index(b)] == SAME for a, b in schema.edges)


def test_vertebrae_are_parts_and_those_next_to_them_neighbours():
    relation = lookup("lumbar_lateral")
    assert relation("L2_sup_ant", "L2_inf_post") is SAME  # The diagonal of one vertebra: no edge joins them.
    assert relation("L2_sup_ant", "L2_sup_post") is SAME
    assert relation("L2_inf_ant", "L3_sup_ant") is NEIGHBOUR
    assert relation("L2_sup_ant", "L3_inf_post") is NEIGHBOUR
    assert relation("L5_inf_post", "S1_sup_post") is NEIGHBOUR
    assert relation("L2_inf_ant", "L4_sup_ant") is DISTANT
    assert relation("T12_sup_ant", "S1_sup_ant") is DISTANT


def test_each_lumbar_corner_has_as_many_of_each_kind_as_its_place_in_the_spine_gives():
    schema = load_schema("lumbar_lateral")
    table = relations(schema)
    counts = {name: np.bincount(table[schema.index(name)], minlength=3).tolist() for name in schema.names}
    # 26 landmarks: six vertebrae of four corners and the sacrum's two.
    assert counts["T12_sup_ant"] == [4, 4, 18]
    assert counts["L3_inf_post"] == [4, 8, 14]
    assert counts["L5_inf_post"] == [4, 6, 16]
    assert counts["S1_sup_ant"] == [2, 4, 20]


def test_in_a_hand_paths_over_bones_decide():
    relation = lookup("hand")
    assert relation("index_mcp", "index_pip") is SAME
    assert relation("index_mcp", "index_dip") is NEIGHBOUR
    assert relation("index_mcp", "index_tip") is DISTANT
    assert relation("mc2_base", "index_pip") is NEIGHBOUR
    assert relation("ulna_styloid", "ulna_metaphysis_radial") is NEIGHBOUR
    # No edge joins one finger to the next, or the ulna to the radius.
    assert relation("index_tip", "middle_tip") is DISTANT
    assert relation("ulna_metaphysis_radial", "radius_metaphysis_ulnar") is DISTANT


def test_left_and_right_partners_are_neighbours():
    relation = lookup("chest")
    assert relation("apex_left", "apex_right") is NEIGHBOUR
    assert relation("apex_left", "lung_left_upper") is SAME
    assert relation("apex_left", "lung_left_middle") is NEIGHBOUR
    assert relation("apex_left", "lung_right_upper") is DISTANT
    assert relation("apex_left", "axis_top") is DISTANT


def points(*names):
    return [{"name": name, "label": name} for name in names]


def test_points_that_cannot_be_told_apart_are_one_part():
    declared = {"name": "ends", "title": "Ends", "landmarks": points("a", "b", "c"), "exchangeable": [["a", "b"]]}
    assert relations(schema_from_dict(declared, where="test")).tolist() == [[0, 0, 2], [0, 0, 2], [2, 2, 0]]


def test_a_chain_reaches_points_outside_it_and_no_path_outside_shortens_the_chain():
    declared = {
        "name": "mixed",
        "title": "A chain of single points, the ends of which an outer point joins",
        "landmarks": points("outer"),
        "chains": [{"name": "spine", "levels": ["A", "B", "C", "D"], "parts": {"centre": "centre"}}],
        "edges": [["outer", "A_centre"], ["outer", "D_centre"], ["A_centre", "B_centre"]],
    }
    schema = schema_from_dict(declared, where="test")
    table = relations(schema)
    outer, a, b, c, d = (schema.index(n) for n in ("outer", "A_centre", "B_centre", "C_centre", "D_centre"))
    assert [table[a, x] for x in (a, b, c, d)] == [SAME, NEIGHBOUR, DISTANT, DISTANT]
    assert [table[outer, x] for x in (a, b, c, d)] == [SAME, DISTANT, DISTANT, SAME]
    assert table[b, d] == DISTANT


def test_a_schema_without_links_has_only_distant_points():
    declared = {"name": "loose", "title": "Loose", "landmarks": points("a", "b")}
    assert relations(schema_from_dict(declared, where="test")).tolist() == [[0, 2], [2, 0]]
