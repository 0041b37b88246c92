"""Elements of chains over several views: one is one wherever it was seen, and landmarks follow from what remains."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from bregma.codecs.chain_landmarks import Landmarks
from bregma.codecs.chain_layout import layout_of
from bregma.errors import InputError
from bregma.geometry import Frame
from bregma.instances import Instance
from bregma.prediction.chains import following, merge_chains, merge_instances
from bregma.prediction.predictor import mixture, unflip
from bregma.schema import LandmarkSchema, load_schema, schema_from_dict
from bregma.types import Prediction

PARTS = ("sup_ant", "sup_post", "inf_ant", "inf_post")
SCHEMA = schema_from_dict(
    {
        "name": "trial",
        "title": "Trial",
        "landmarks": [{"name": "marker", "label": "Marker"}],
        "chains": [
            {
                "name": "column",
                "levels": ["A", "B", "S"],
                "parts": {part: part for part in PARTS},
                "partial": {"S": ["sup_ant", "sup_post"]},
                "anchor": "S",
            }
        ],
    },
    where="trial",
)
BOX = np.array([(-10.0, -6.0), (10.0, -6.0), (-10.0, 6.0), (10.0, 6.0)])


def at(x: float, y: float) -> NDArray[np.float64]:
    return BOX + np.array((x, y))


def element(
    y: float, level: str | None = None, sure: float = 0.9, probability: float = 0.8, x: float = 50.0
) -> Instance:
    return Instance(
        "column",
        PARTS,
        at(x, y),
        np.repeat(np.eye(2)[None], 4, axis=0),
        np.full(4, probability),
        probability,
        level,
        sure if level else 0.0,
    )


def sacrum(y: float) -> Instance:
    return Instance("column", PARTS[:2], at(50, y)[:2], np.repeat(np.eye(2)[None], 2, axis=0), np.ones(2), 1, "S", 1)


def prediction(*instances: Instance, marker: float = 10.0) -> Prediction:
    mean = np.full((11, 2), 49.5)
    mean[0] = marker
    cov = np.repeat(833 * np.eye(2)[None], 11, axis=0)
    return Prediction("a", mean, cov, np.zeros(11), Frame((100, 100)), instances=instances)


def test_points_are_averaged_and_disagreement_widens_the_covariance() -> None:
    (one,) = merge_instances([[element(20.0, "A")], [element(24.0, "A", sure=0.7)]])
    np.testing.assert_allclose(one.points, at(50, 22))
    np.testing.assert_allclose(one.cov[0], np.diag([1.0, 1.0 + 4.0]))
    assert (one.level, one.probability) == ("A", pytest.approx(0.8))
    assert one.level_probability == pytest.approx(0.8)


def test_an_element_that_most_views_do_not_show_is_dropped() -> None:
    """0.8 in two of three views is 0.53 on the average, in one of three 0.27."""
    views = [[element(20.0), element(50.0)], [element(20.5)], []]
    (one,) = merge_instances(views)
    assert one.centre == pytest.approx((50.0, 20.25))
    assert one.probability == pytest.approx(1.6 / 3)
    np.testing.assert_allclose(one.presence, 1.6 / 3)


def test_neighbours_stay_apart_and_in_order() -> None:
    views = [[element(20.0), element(48.0), sacrum(70.0)], [element(22.0), element(46.0), sacrum(70.0)]]
    found = merge_instances(views)
    assert [round(float(one.centre[1])) for one in found] == [21, 47, 64]
    assert found[-1].level == "S"


def test_a_level_is_named_by_most_and_only_once() -> None:
    """Two views say B for the lower one, a third says A with which it is outvoted."""
    views = [[element(50.0, "B")], [element(50.0, "B")], [element(50.0, "A")]]
    (one,) = merge_instances(views)
    assert (one.level, one.level_probability) == ("B", pytest.approx(0.6))
    split = merge_instances([[element(50.0, "B", 0.9)], [element(50.0, "A", 0.9)]])
    assert split[0].level is None
    both = merge_instances([[element(20.0, "B", 0.9), element(50.0, "B", 0.6)]])
    assert [one.level for one in both] == ["B", None]


def test_of_a_chain_seen_whole_one_view_suffices_where_an_element_would_lack() -> None:
    """Both views show the first and the third; the second is sure in one alone, the fourth there is improbable."""

    def at_odds(y: float, probability: float) -> Instance:
        return replace(element(y), probability=probability, presence=np.full(4, probability))

    first = [at_odds(y, probability) for y, probability in ((20, 1), (50, 0.9998), (80, 1), (110, 0.3))]
    second = [at_odds(20, 1), at_odds(80, 1)]
    assert [round(float(one.centre[1])) for one in merge_instances([first, second])] == [20, 80]
    found = merge_instances([first, second], count=4)
    assert [round(float(one.centre[1])) for one in found] == [20, 50, 80]
    assert found[1].probability > 0.9
    np.testing.assert_allclose(found[1].presence, found[1].probability)
    assert len(merge_instances([first, second], count=2)) == 2
    sides = merge_instances([[at_odds(20, 0.6), at_odds(50, 0.7), at_odds(80, 0.8)]], count=2)
    assert [one.probability for one in sides] == [0.7, 0.8]


def shared(y: float, **shares: float) -> Instance:
    """An element of a chain that is seen whole, named only where one level is probable enough."""
    best = max(shares, key=shares.__getitem__)
    named = shares[best] > 0.5
    return replace(
        element(y, best if named else None, shares[best]), chain="whole", level_shares={k: shares[k] for k in shares}
    )


def test_what_no_view_says_alone_they_say_together() -> None:
    """Neither view names it for sure: one has A at 0.45, the other at 0.9."""
    (one,) = merge_instances([[shared(20.0, A=0.45, B=0.44, C=0.11)], [shared(20.0, A=0.9, B=0.1)]])
    assert (one.level, one.level_probability) == ("A", pytest.approx(0.675))
    assert one.level_shares == pytest.approx({"A": 0.675, "B": 0.27, "C": 0.055})
    (one,) = merge_instances([[shared(20.0, A=0.9, B=0.1)], [shared(20.0, A=0.1, B=0.9)]])
    assert (one.level, one.level_probability) == (None, 0.0)
    assert one.level_shares == pytest.approx({"A": 0.5, "B": 0.5})


def test_shares_are_kept_in_files() -> None:
    one = shared(20.0, A=0.45, B=0.44)
    assert Instance.from_dict(one.to_dict()) == one
    assert "level_shares" not in element(20.0, "A").to_dict()
    with pytest.raises(InputError, match="shares"):
        replace(one, level_shares={"A": 1.2})


WHOLE = schema_from_dict(
    {
        "name": "trial",
        "title": "Trial",
        "chains": [{"name": "whole", "levels": list("ABCDE"), "parts": {part: part for part in PARTS}}],
    },
    where="trial",
)


def filled(*elements: Instance) -> Landmarks:
    found = Landmarks(len(WHOLE), (200, 100))
    found.put_elements(elements, layout_of(WHOLE, None))
    return found


def test_of_a_whole_chain_every_level_is_somewhere() -> None:
    """B is not found, C has no name, and E lies beyond the last one; only what is named is there."""
    found = filled(shared(20.0, A=0.8, B=0.2), shared(60.0, C=0.45, B=0.4, D=0.15), shared(80.0, D=0.7, C=0.3))
    for level, y, there in (("A", 20, 0.8), ("B", 40, 0), ("C", 60, 0), ("D", 80, 0.8), ("E", 110, 0)):
        first = WHOLE.index(f"{level}_sup_ant")
        np.testing.assert_allclose(found.mean[first : first + 4], at(50, y))
        np.testing.assert_allclose(found.presence[first : first + 4], there)
    spread = [found.cov[WHOLE.index(f"{level}_sup_ant")][1, 1] for level in "ABCDE"]
    assert spread == pytest.approx([1.0, 900.0, 901.0, 1.0, 900.0])
    assert found.cov[WHOLE.index("B_sup_ant")].tolist() == [[900.0, 0.0], [0.0, 900.0]]


def test_two_without_a_name_do_not_share_a_level() -> None:
    found = filled(shared(20.0, A=0.5, B=0.3), shared(55.0, A=0.45, B=0.4), shared(100.0, D=0.9))
    for level, y in (("A", 20), ("B", 55), ("D", 100)):
        first = WHOLE.index(f"{level}_sup_ant")
        np.testing.assert_allclose(found.mean[first : first + 4], at(50, y))
        assert (found.presence[first : first + 4] > 0).all() == (level == "D")


@pytest.mark.parametrize("count", [0, 1])
def test_one_alone_suggests_nothing(count: int) -> None:
    found = filled(*[element(20.0)][:count])
    assert (found.mean == [49.5, 99.5]).all()


def test_no_view_shows_anything() -> None:
    assert merge_instances([[], []]) == ()


def test_landmarks_are_those_of_the_merged_elements_and_not_averages_by_name() -> None:
    """Seen as A by two views and as B by one, the element stands for A alone; the marker is averaged."""
    views = [prediction(element(20.0, "A"), marker=10.0), prediction(element(20.0, "A"), marker=13.0)]
    views.append(prediction(element(20.0, "B", sure=0.4), marker=16.0))
    got = merge_chains(mixture(views), views, SCHEMA)
    a, b = SCHEMA.index("A_sup_ant"), SCHEMA.index("B_sup_ant")
    np.testing.assert_allclose(got.mean[a : a + 4], at(50, 20))
    np.testing.assert_allclose(got.presence[a : a + 4], 0.8)
    assert got.presence[b] == 0
    assert got.mean[b].tolist() == [49.5, 49.5]
    assert got.mean[0].tolist() == [13.0, 13.0]
    assert got.instances is not None
    assert [one.level for one in got.instances] == ["A"]


def test_predictions_without_elements_are_left_alone() -> None:
    plain = Prediction("a", np.zeros((11, 2)), np.zeros((11, 2, 2)), np.ones(11), Frame((100, 100)))
    assert merge_chains(plain, [plain, plain], SCHEMA) is plain
    assert following(plain, SCHEMA) is plain


def test_elements_follow_landmarks_that_were_moved() -> None:
    before = prediction(element(20.0, "A"), element(50.0))
    mean = before.mean.copy()
    a = SCHEMA.index("A_sup_ant")
    mean[a : a + 4] = at(52, 21)
    moved = following(
        Prediction("a", mean, before.cov, before.presence, before.frame, instances=before.instances), SCHEMA
    )
    assert moved.instances is not None
    np.testing.assert_allclose(moved.instances[0].points, at(52, 21))
    np.testing.assert_allclose(moved.instances[1].points, at(50, 50))


@pytest.mark.parametrize(("name", "order"), [("spine_ap", [1, 0, 3, 2]), ("lumbar_lateral", [0, 1, 2, 3])])
def test_parts_seen_in_a_mirror_get_their_own_names_back(name: str, order: list[int]) -> None:
    schema: LandmarkSchema = load_schema(name)
    chain, n = schema.chains[0], len(schema)
    one = Instance(chain.name, tuple(chain.parts), BOX + 50, np.zeros((4, 2, 2)), np.array([0.1, 0.2, 0.3, 0.4]), 0.5)
    seen = Prediction("a", np.zeros((n, 2)), np.zeros((n, 2, 2)), np.ones(n), Frame((100, 100)), instances=(one,))
    (named,) = unflip(seen, schema).instances or ()
    np.testing.assert_array_equal(named.points, (BOX + 50)[order])
    assert named.presence.tolist() == one.presence[order].tolist()
