"""The catalog lists every table, in words, without importing more than it must."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from bregma.catalog import TABLES, CatalogTable, anatomy, catalog, encoders
from bregma.errors import ConfigError, SchemaError


@pytest.fixture(scope="module")
def tables() -> dict[str, CatalogTable]:
    return {table.name: table for table in catalog()}


def names(table: CatalogTable) -> set[str]:
    return {row.name for row in table.rows}


def test_all_tables_in_their_order(tables: dict[str, CatalogTable]) -> None:
    assert list(tables) == list(TABLES)
    assert {
        "anatomies",
        "datasets",
        "exporters",
        "phantoms",
        "networks",
        "codecs",
        "losses",
        "primitives",
        "settings",
    } <= set(tables)


def test_every_row_says_what_it_is_and_where(tables: dict[str, CatalogTable]) -> None:
    for table in tables.values():
        assert table.rows, table.name
        assert len(names(table)) == len(table.rows), table.name
        for row in table.rows:
            assert row.summary.strip(), f"{table.name}: {row.name}"
            assert row.source.startswith(("bregma.", "anatomies/", "recipes/", "studies/")), f"{table.name}: {row.name}"
            assert "\n" not in row.summary
            assert "``" not in row.summary


def test_rows_are_those_of_the_tables_themselves(tables: dict[str, CatalogTable]) -> None:
    from bregma.codecs import CODECS
    from bregma.datasets import DATASETS, EXPORTERS
    from bregma.losses import LOSSES
    from bregma.measurement import PRIMITIVES
    from bregma.networks import NETWORKS
    from bregma.phantoms import PHANTOMS
    from bregma.schema import builtin_schemas

    assert names(tables["anatomies"]) == set(builtin_schemas())
    assert names(tables["datasets"]) == set(DATASETS)
    assert names(tables["exporters"]) == set(EXPORTERS)
    assert names(tables["phantoms"]) == set(PHANTOMS)
    assert names(tables["networks"]) == set(NETWORKS)
    assert names(tables["codecs"]) == set(CODECS)
    assert names(tables["losses"]) == set(LOSSES)
    assert names(tables["primitives"]) == set(PRIMITIVES)
    assert names(tables["steps"]) == {"clahe", "histogram_match"}


def test_every_setting_is_explained_with_its_default(tables: dict[str, CatalogTable]) -> None:
    rows = {row.name: row for row in tables["settings"].rows}
    assert [name for name, row in rows.items() if ". " not in row.summary] == []
    assert rows["augment.rotation_deg"].summary.startswith("15.0. Rotation, uniform")
    assert rows["evaluate.draws"].summary == "2000. Bootstrap resamples."
    assert rows["minutes"].summary.startswith("none. Wall-clock")
    assert rows["model.network"].summary.startswith('"timm_unet". ')
    assert {name.partition(".")[0] for name in rows} >= {"data", "split", "predict", "refine", "fit", "model", "train"}
    assert {"train.schedule.final", "model.preprocess.size", "split.stratify", "refine.span"} <= rows.keys()


def test_counts_of_an_anatomy() -> None:
    """The published fetal-head landmarks are the two ends of two diameters."""
    (table,) = catalog(["anatomies"])
    row = next(row for row in table.rows if row.name == "fetal_head")
    assert "4 landmarks" in row.summary


def test_all_image_suffixes_are_listed(tables: dict[str, CatalogTable]) -> None:
    from bregma.io import IMAGE_SUFFIXES

    listed = ", ".join(row.summary for row in tables["images"].rows).split(", ")
    assert sorted(listed) == sorted(IMAGE_SUFFIXES)


def test_one_anatomy_in_full() -> None:
    landmarks, measurements = anatomy("fetal_head")
    assert names(landmarks) == {"ofd_1", "ofd_2", "bpd_1", "bpd_2"}
    assert {"ofd", "bpd"} <= names(measurements)


def test_json(tables: dict[str, CatalogTable]) -> None:
    assert json.loads(json.dumps([table.to_dict() for table in tables.values()]))[0]["name"] == "anatomies"


def test_unknown_names() -> None:
    with pytest.raises(ConfigError, match="there is no table 'nope'; expected one of anatomies"):
        catalog(["nope"])
    with pytest.raises(SchemaError, match="there is no built-in anatomy 'nope'"):
        anatomy("nope")


def test_encoders() -> None:
    found = encoders("ResNet18")
    assert "resnet18" in found
    assert all("resnet18" in name for name in found)
    with pytest.raises(ConfigError, match="no encoder with 'no such thing'"):
        encoders("no such thing")


def test_listing_anatomies_waits_for_nothing_heavy() -> None:
    script = (
        "import sys; from bregma.catalog import catalog; catalog(['anatomies', 'phantoms']);"
        "print([m for m in ('torch', 'cv2', 'pandas', 'matplotlib', 'scipy') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
