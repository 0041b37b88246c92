"""Whatever is wrong with what a user gives: a clear message, an error of Bregma's own, and nothing lost.

Each row says how the fault is made, what is then called, from Python and from the command line, and what the message
must name: the file, row or setting, what was expected, how to mend it.
"""

from __future__ import annotations

import errno
import json
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from typer.testing import Result

import tiny
import wrong_input
from bregma import workflows
from bregma.bundle import PredictConfig
from bregma.errors import (
    BregmaError,
    BundleError,
    ConfigError,
    ImageError,
    InputError,
    LabelError,
    RunError,
    SchemaError,
    SplitError,
)
from bregma.files import sha256_file
from bregma.workflows import DataOptions
from command_line import bregma
from wrong_input import Place, cut, edit, flip_byte, swap

CPU = PredictConfig(accelerator="cpu")
NO_NETWORK = [item for item in tiny.OVERRIDES if not item.startswith("model.network.")]


def options(settings: Iterable[str]) -> list[str]:
    """Return settings as the command line takes them."""
    return [argument for item in settings for argument in ("--set", item)]


SETTINGS = options(tiny.OVERRIDES)


@pytest.fixture
def place(tmp_path: Path, run: Path) -> Place:
    return wrong_input.build(tmp_path, run)


def assert_one_clear_line(result: Result, words: tuple[str, ...]) -> None:
    assert result.exit_code == 2, result.output
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, lines
    assert lines[0].startswith("error: ")
    assert "Traceback" not in result.output
    for word in words:
        assert word in lines[0]


def assert_nothing_lost(place: Place, before: dict[str, bytes]) -> None:
    after = place.snapshot()
    assert {name: after.get(name) for name in before} == before
    assert after.keys() == before.keys()


@dataclass(frozen=True)
class Call:
    """A workflow, as a function and as a command."""

    run: Callable[[Place], Any]
    command: Callable[[Place], list[str | Path]]


def inspecting(path: Callable[[Place], Path], **options: Any) -> Call:
    def run(p: Place) -> Any:
        given = {name: value(p) if callable(value) else value for name, value in options.items()}
        return workflows.inspect(path(p), out=p.out, options=DataOptions(**given))

    def command(p: Place) -> list[str | Path]:
        given = {name: value(p) if callable(value) else value for name, value in options.items()}
        flags: list[str | Path] = []
        for name, value in given.items():
            flags += [f"--{name}"] if value is True else [f"--{name}", value]
        return ["inspect", path(p), "--out", p.out, *flags]

    return Call(run, command)


def training(
    path: Callable[[Place], Path],
    *,
    recipe: bool = False,
    resume: bool = False,
    out: str = "out",
    overrides: Sequence[str] = tiny.OVERRIDES,
) -> Call:
    def run(p: Place) -> Any:
        chosen = p.recipe if recipe else None
        return workflows.train(path(p), p.root / out, recipe=chosen, overrides=overrides, resume=resume)

    def command(p: Place) -> list[str | Path]:
        flags = [*(["--recipe", p.recipe] if recipe else []), *(["--resume"] if resume else [])]
        return ["train", path(p), "--out", p.root / out, *options(overrides), *flags]

    return Call(run, command)


INSPECT = inspecting(lambda p: p.labels)
STRICT = inspecting(lambda p: p.labels, strict=True)
WITH_SCHEMA = inspecting(lambda p: p.labels, schema=lambda p: p.schema)
JSON = inspecting(lambda p: p.json)
TRAIN = training(lambda p: p.json)
EVALUATE = Call(
    lambda p: workflows.evaluate(p.run, p.json, part="all", out=p.out, predict=CPU),
    lambda p: ["evaluate", p.run, p.json, "--part", "all", "--out", p.out, "--set", "predict.accelerator=cpu"],
)
PREDICT = Call(
    lambda p: workflows.predict([p.run], [p.images], p.out, config=CPU),
    lambda p: ["predict", p.run, p.images, "--out", p.out, "--set", "predict.accelerator=cpu"],
)
MEASURE = Call(
    lambda p: workflows.measure(p.json, out=p.out),
    lambda p: ["measure", p.json, "--out", p.out],
)
CONVERT = Call(
    lambda p: workflows.convert(p.json, p.out, "coco"),
    lambda p: ["convert", p.json, "--to", "coco", "--out", p.out],
)
PHANTOM = Call(
    lambda p: workflows.phantom("fetal_head", p.out, count=1, size=64),
    lambda p: ["phantom", "fetal_head", "--count", "1", "--size", "64", "--out", p.out],
)
COMPARE = Call(
    lambda p: workflows.compare([p.run, p.run / "evaluation" / "test"], out=p.out),
    lambda p: ["compare", p.run, p.run / "evaluation" / "test", "--out", p.out],
)


@dataclass(frozen=True)
class Row:
    """One fault."""

    name: str
    spoil: Callable[[Place], Any]
    call: Call
    error: type[BregmaError]
    words: tuple[str, ...]


def bundle(change: Callable[[Any], Any]) -> Callable[[Place], None]:
    return lambda p: edit(p.run / "bundle" / "bundle.json", change)


def other_schema(p: Place) -> None:
    """Put another anatomy into the bundle and make its hash fit."""
    path = p.run / "bundle" / "schema.json"
    edit(path, lambda d: d["landmarks"].append({"name": "third", "label": "Third"}))
    bundle(lambda d: d["sha256"].update({"schema.json": sha256_file(path)}))(p)


def weights_of_another_shape(p: Place) -> None:
    """Let a recipe start from weights whose stem is another network's."""
    save_file({"conv1.0.weight": torch.zeros(7, 3, 5, 5)}, p.root / "first.safetensors")
    network = f"{{name: simple_baseline, encoder: test_resnet, pretrained: {p.root / 'first.safetensors'}}}"
    p.recipe.write_text(f"title: Mine\nmodel:\n  network: {network}\n")


THREE_POINTS = {"points": [[1, 2], [3, 4], [5, 6]], "status": ["visible"] * 3}


def three_landmarks(data: Any) -> None:
    data["schema"]["landmarks"].append({"name": "third", "label": "Third"})
    for case in data["cases"]:
        case["landmarks"] = THREE_POINTS


ROWS = (
    # Labels in a table.
    Row("no table", lambda p: p.labels.unlink(), INSPECT, LabelError, ("labels.csv", "is not there", "label file")),
    Row("empty table", lambda p: p.labels.write_text(""), INSPECT, LabelError, ("labels.csv",)),
    Row("header alone", lambda p: p.labels.write_text(wrong_input.HEADER), INSPECT, LabelError, ("labels.csv",)),
    Row(
        "missing column",
        lambda p: swap(p.labels, "dark_y", "dark_why"),
        WITH_SCHEMA,
        LabelError,
        ("labels.csv", "dark"),
    ),
    Row(
        "missing image column",
        lambda p: swap(p.labels, "image,", "scan,"),
        inspecting(lambda p: p.labels, format="csv"),
        LabelError,
        ("labels.csv", "no column seems to name the image", "rename the column"),
    ),
    Row(
        "text in a number",
        lambda p: swap(p.labels, "c1.png,s1,train,", "c1.png,s1,train,left of "),
        INSPECT,
        LabelError,
        ("labels.csv, row 3", "'bright_x'", "'left of "),
    ),
    Row(
        "NaN",
        lambda p: swap(p.labels, "c1.png,s1,train,", "c1.png,s1,train,nan"),
        INSPECT,
        LabelError,
        ("labels.csv, row 3", "'bright_x'"),
    ),
    Row(
        "duplicate row",
        lambda p: swap(p.labels, "c1.png,s1", "c0.png,s0"),
        INSPECT,
        LabelError,
        ("labels.csv, row 3", "'c0.png'", "row 2", "keep the right one"),
    ),
    Row(
        "image that is not there",
        lambda p: (p.root / "data" / "c1.png").unlink(),
        STRICT,
        ImageError,
        ("labels.csv, row 3", "c1.png"),
    ),
    Row(
        "too many fields",
        lambda p: swap(p.labels, "c1.png,s1,train,", "c1.png,s1,train,5,5,"),
        INSPECT,
        LabelError,
        ("labels.csv, row 3", "wrong number of fields", "expected 7", "got 9"),
    ),
    Row(
        "too few fields",
        lambda p: swap(p.labels, "c1.png,s1,train,", "c1.png,"),
        INSPECT,
        LabelError,
        ("labels.csv, row 3", "wrong number of fields", "expected 7", "got 5"),
    ),
    Row(
        "half a point",
        lambda p: p.labels.write_text(wrong_input.HEADER + "c0.png,s0,train,,9,7,8\n"),
        INSPECT,
        LabelError,
        ("labels.csv, row 2", "lacks a coordinate in 'bright_x'", "leave both fields empty"),
    ),
    Row(
        "schema that does not fit the labels",
        lambda p: None,
        inspecting(lambda p: p.labels, schema="fetal_head"),
        BregmaError,
        ("labels.csv", "ofd"),
    ),
    Row(
        "declared columns with an unknown key",
        lambda p: p.labels.with_suffix(".columns.yaml").write_text("image: image\npointz: {a: [x, y]}\n"),
        inspecting(lambda p: p.labels, format="csv"),
        ConfigError,
        ("labels.columns.yaml, line 2", "unknown setting 'pointz'", "points"),
    ),
    # Labels in JSON.
    Row("broken JSON", lambda p: cut(p.json), JSON, InputError, ("dataset.json, line", "is not valid JSON")),
    Row(
        "entry of the wrong kind",
        lambda p: edit(p.json, lambda d: d["cases"][1]["landmarks"]["points"][0].__setitem__(0, "left")),
        JSON,
        LabelError,
        ("dataset.json, case 'c1'", "coordinate", "'left'"),
    ),
    Row(
        "too few points",
        lambda p: edit(p.json, lambda d: d["cases"][1]["landmarks"]["points"].pop()),
        JSON,
        LabelError,
        ("dataset.json, case 'c1'", "1 and 2"),
    ),
    Row(
        "too many points",
        lambda p: edit(p.json, lambda d: d["cases"][1].update(landmarks=THREE_POINTS)),
        JSON,
        SchemaError,
        ("case c1", "expected 2 landmarks, got 3", "choose the schema"),
    ),
    Row(
        "schema in the data with an unknown key",
        lambda p: edit(p.json, lambda d: d["schema"].update(flipp="keep")),
        JSON,
        SchemaError,
        ("dataset.json, schema", "unknown setting 'flipp'", "flip"),
    ),
    # Schemas and recipes.
    Row(
        "broken YAML of a schema",
        lambda p: p.schema.write_text("name: spots\ntitle: [\n"),
        WITH_SCHEMA,
        SchemaError,
        ("spots.yaml, line", "is not valid YAML"),
    ),
    Row(
        "schema with an unknown key",
        lambda p: swap(p.schema, "title:", "titel:"),
        WITH_SCHEMA,
        SchemaError,
        ("spots.yaml, line 2", "unknown setting 'titel'", "title"),
    ),
    Row(
        "schema that contradicts itself",
        lambda p: swap(p.schema, "    b: dark", "    b: darkest"),
        WITH_SCHEMA,
        SchemaError,
        ("spots.yaml, line", "'darkest', which is not a landmark"),
    ),
    Row(
        "unknown anatomy",
        lambda p: None,
        inspecting(lambda p: p.labels, schema="elbow"),
        SchemaError,
        ("there is no built-in anatomy 'elbow'", "fetal_head", "a .yaml file"),
    ),
    Row(
        "broken YAML of a recipe",
        lambda p: p.recipe.write_text("train: {epochs: 1\n"),
        training(lambda p: p.json, recipe=True),
        ConfigError,
        ("recipe.yaml, line", "is not valid YAML"),
    ),
    Row(
        "recipe with an unknown key",
        lambda p: swap(p.recipe, "epochs", "epoch"),
        training(lambda p: p.json, recipe=True),
        ConfigError,
        ("recipe.yaml, line 3", "unknown setting 'train.epoch'", "epochs"),
    ),
    Row(
        "frozen part that the network does not have",
        lambda p: p.recipe.write_text("train:\n  phases: [{epochs: 1, freeze: [neck]}, {epochs: 1}]\n"),
        training(lambda p: p.json, recipe=True),
        ConfigError,
        ("recipe.yaml, line 2, train.phases.0.freeze", "no part 'neck'", "backbone, head"),
    ),
    Row(
        "unknown loss",
        lambda p: p.recipe.write_text("title: Mine\nloss: [{name: wings}]\n"),
        training(lambda p: p.json, recipe=True),
        ConfigError,
        ("recipe.yaml, line 2", "'loss.0'", "there is no 'wings'; known are mse,", "wing,"),
    ),
    Row(
        "coordinate network with a loss of heatmaps",
        lambda p: p.recipe.write_text(
            "loss:\n  - name: wing\n  - name: focal\nmodel: {network: {name: coordinate_net, encoder: test_resnet}}\n"
        ),
        training(lambda p: p.json, recipe=True, overrides=NO_NETWORK),
        ConfigError,
        ("recipe.yaml, line 3, loss.1", "'focal' needs the output 'maps'", "a codec that gives points"),
    ),
    Row(
        "coordinate network with a codec of heatmaps",
        lambda p: p.recipe.write_text(
            "model:\n  network: {name: coordinate_net, encoder: test_resnet}\n  codec: {name: heatmap}\n"
        ),
        training(lambda p: p.json, recipe=True, overrides=NO_NETWORK),
        ConfigError,
        ("recipe.yaml, line 2, model.network.name", "gives vectors only", "set model.codec.name=coordinate"),
    ),
    Row(
        "first weights of another shape",
        weights_of_another_shape,
        training(lambda p: p.json, recipe=True, overrides=NO_NETWORK),
        ConfigError,
        ("recipe.yaml, line 3, model.network.pretrained", "'conv1.0.weight' of 16 x 1 x 3 x 3", "got 7 x 3 x 5 x 5"),
    ),
    Row(
        "warm-up longer than the training",
        lambda p: p.recipe.write_text("train:\n  schedule: {warmup_steps: 5}\n"),
        training(lambda p: p.json, recipe=True),
        ConfigError,
        ("recipe.yaml, line 2, train.schedule.warmup_steps", "longer than the training", "2 at most", "got 5"),
    ),
    Row(
        "weights selected by what is not logged",
        lambda p: p.recipe.write_text("title: mine\ntrain:\n  monitor: accuracy\n"),
        training(lambda p: p.json, recipe=True),
        ConfigError,
        ("recipe.yaml, line 2", "monitor=accuracy is not logged", "val_mre_px"),
    ),
    Row(
        "recipe of the wrong kind",
        lambda p: p.recipe.write_text("5\n"),
        training(lambda p: p.json, recipe=True),
        ConfigError,
        ("recipe.yaml", "a mapping"),
    ),
    # Splits.
    Row(
        "empty part of a split",
        lambda p: edit(p.json, lambda d: d["splits"].update(test=[])),
        TRAIN,
        SplitError,
        ("'test' is empty", "add cases"),
    ),
    Row(
        "subject in two parts",
        lambda p: edit(p.json, lambda d: d["cases"][2].update(subject="s0")),
        TRAIN,
        SplitError,
        ("more than one part", "s0 (test and train)", "into one part"),
    ),
    Row(
        "split that names no case",
        lambda p: edit(p.json, lambda d: d["splits"]["test"].append("c99")),
        TRAIN,
        LabelError,
        ("dataset.json", "'test'", "c99"),
    ),
    Row(
        "split without a part to train on",
        lambda p: edit(p.json, lambda d: d["splits"].update(learn=d["splits"].pop("train"))),
        TRAIN,
        SplitError,
        ("no part to train on", "'train'"),
    ),
    # Run folders.
    Row(
        "run folder that exists",
        lambda p: None,
        training(lambda p: p.json, out="run"),
        RunError,
        ("/run:", "exists already", "--resume"),
    ),
    Row(
        "run folder that is a file",
        lambda p: None,
        training(lambda p: p.json, out="recipe.yaml"),
        RunError,
        ("recipe.yaml:", "exists already"),
    ),
    Row(
        "run resumed on other data",
        lambda p: None,
        training(lambda p: p.json, out="run", resume=True),
        RunError,
        ("/run:", "the 'train' images or labels", "give the same data"),
    ),
    Row(
        "folder for predictions that holds something",
        lambda p: (p.out.mkdir(), (p.out / "mine.txt").write_text("mine")),
        PREDICT,
        RunError,
        ("/out:", "exists already", "another --out"),
    ),
    # Bundles.
    Row("no bundle", lambda p: (p.run / "bundle" / "bundle.json").unlink(), PREDICT, BundleError, ("is not a bundle",)),
    Row(
        "weights that changed",
        lambda p: flip_byte(p.run / "bundle" / "weights.safetensors"),
        PREDICT,
        BundleError,
        ("weights.safetensors", "has changed", "copy"),
    ),
    Row(
        "schema that changed",
        lambda p: swap(p.run / "bundle" / "schema.json", "Two spots", "Two Spots"),
        EVALUATE,
        BundleError,
        ("schema.json", "has changed", "copy"),
    ),
    Row("schema of another anatomy", other_schema, PREDICT, BundleError, ("weights do not fit the network",)),
    Row(
        "labels of another anatomy",
        lambda p: edit(p.json, three_landmarks),
        EVALUATE,
        SchemaError,
        ("c0", "not of the model's anatomy", "expected 2 landmarks of 'spots', got 3"),
    ),
    Row(
        "bundle of another version",
        bundle(lambda d: d.update(format=99)),
        PREDICT,
        BundleError,
        ("bundle.json", "another format version", "expected 1, got 99", "train again"),
    ),
    Row(
        "bundle with an unknown setting",
        bundle(lambda d: d["model"]["codec"].update(sgima=2)),
        EVALUATE,
        BundleError,
        ("bundle.json", "unknown setting 'model.codec.sgima'", "sigma_px"),
    ),
    # Images, where every one of them is wanted.
    Row(
        "no images", lambda p: (p.images / "good.png").unlink(), PREDICT, ImageError, ("there are no images", "images")
    ),
    Row(
        "images that all are broken",
        lambda p: [cut(path, 0.3) for path in (p.root / "data").glob("*.png")],
        STRICT,
        BregmaError,
        ("c0.png",),
    ),
    Row(
        "image of another size than when labelled",
        lambda p: edit(p.json, lambda d: d["cases"][1]["frame"].update(shape=[32, 32])),
        JSON,
        LabelError,
        ("case 'c1'", "another size", "expected 32 x 32", "got 64 x 64"),
    ),
    Row(
        "truncated image to learn from",
        lambda p: cut(p.json.parent / "images" / "c0.png", 0.7),
        TRAIN,
        ImageError,
        ("c0.png",),
    ),
)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_function(place: Place, row: Row) -> None:
    row.spoil(place)
    before = place.snapshot()
    with pytest.raises(row.error) as caught:
        row.call.run(place)
    for word in row.words:
        assert word in str(caught.value)
    assert_nothing_lost(place, before)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_command(place: Place, row: Row) -> None:
    row.spoil(place)
    before = place.snapshot()
    assert_one_clear_line(bregma(*row.call.command(place)), row.words)
    assert_nothing_lost(place, before)


def bad(name: str, make: Callable[[Path], Any], *words: str) -> Any:
    return pytest.param(name, make, words, id=name)


BAD_IMAGES = (
    bad("zero.png", lambda path: path.touch(), "is empty", "copy or export"),
    bad("text.png", lambda path: path.write_text("not an image"), "is not an image that can be read", "PNG"),
    bad("cut.png", lambda path: cut(wrong_input.png(path, tiny.case(7)), 0.6), "cut.png"),
    bad("cut.jpg", lambda path: cut(wrong_input.png(path, tiny.case(7)), 0.6), "cut.jpg"),
    bad("huge.png", wrong_input.huge_png, "too large"),
    bad("cut.dcm", lambda path: cut(wrong_input.dicom(path), 0.8), "cut.dcm"),
    bad("head.dcm", lambda path: cut(wrong_input.dicom(path), 0.05), "head.dcm"),
    bad("bare.dcm", lambda path: wrong_input.dicom(path, without=("PixelData",)), "has no pixel data", "export"),
    bad("film.dcm", lambda path: mpeg(path), "transfer syntax"),
    bad("none.dcm", lambda path: wrong_input.dicom(path, without=("Rows",)), "none.dcm"),
)


def mpeg(path: Path) -> None:
    """Write a DICOM file that claims to be a film."""
    wrong_input.dicom(path)
    content = path.read_bytes()
    old, new = b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.1.2.4.100\0"
    length = len(old).to_bytes(2, "little")
    assert content.count(length + old) == 1
    content = content.replace(length + old, len(new).to_bytes(2, "little") + new)
    start = content.index(b"DICM") + 4
    group = int.from_bytes(content[start + 8 : start + 12], "little") + len(new) - len(old)
    path.write_bytes(content[: start + 8] + group.to_bytes(4, "little") + content[start + 12 :])


@pytest.mark.parametrize(("name", "make", "words"), BAD_IMAGES)
def test_a_bad_image_is_listed_and_the_others_go_on(
    place: Place, name: str, make: Callable[[Path], Any], words: tuple[str, ...]
) -> None:
    make(place.images / name)
    result = PREDICT.run(place)
    assert [p.case_id for p in result.predictions] == ["good.png"]
    (failure,) = result.failures
    assert failure.case_id == name
    for word in words:
        assert word in failure.reason
    assert json.loads((place.out / "failures.json").read_text()) == {name: failure.reason}


def test_bad_images_from_the_command_line(place: Place) -> None:
    (place.images / "zero.png").touch()
    (place.images / "text.png").write_text("not an image")
    result = bregma(*PREDICT.command(place))
    assert result.exit_code == 3
    lines = [line for line in result.stderr.splitlines() if line.startswith("left out: ")]
    assert [line.split(":")[1].strip() for line in lines] == ["text.png", "zero.png"]
    assert "Traceback" not in result.output


@pytest.mark.parametrize("spacing", [None, [0, 0], [0.5, 0], [-0.5, 0.5], ["", ""]])
def test_a_dicom_file_without_a_usable_spacing_is_measured_in_pixels(place: Place, spacing: list[Any] | None) -> None:
    elements = {} if spacing is None else {"PixelSpacing": spacing}
    wrong_input.dicom(place.images / "x.dcm", **elements)
    result = PREDICT.run(place)
    measured = {p.case_id: found[0] for p, found in zip(result.predictions, result.measurements)}
    assert (measured["x.dcm"].unit, measured["x.dcm"].value > 0) == ("px", True)
    assert "spacing" in measured["x.dcm"].reason


WRITERS = {
    "inspect": INSPECT,
    "train": TRAIN,
    "evaluate": EVALUATE,
    "predict": PREDICT,
    "measure": MEASURE,
    "convert": CONVERT,
    "phantom": PHANTOM,
    "compare": COMPARE,
}


# Converting writes one file, because the images are on disk already.
@pytest.mark.parametrize(("name", "written"), [(n, w) for n in WRITERS for w in (0, 1) if (n, w) != ("convert", 1)])
@pytest.mark.parametrize(
    ("number", "message"), [(errno.ENOSPC, "No space left on device"), (errno.EACCES, "Permission denied")]
)
def test_a_place_that_cannot_be_written(
    place: Place, monkeypatch: pytest.MonkeyPatch, name: str, number: int, message: str, written: int
) -> None:
    """The first or the second file under ``out`` fails; what was there stays, what is new is whole."""
    before = place.snapshot()
    left = [written]

    def refuse(make: Callable[..., Any]) -> Callable[..., Any]:
        def maker(*args: Any, **kwargs: Any) -> Any:
            if str(kwargs.get("dir", "")).startswith(str(place.out)):
                left[0] -= 1
                if left[0] < 0:
                    raise OSError(number, os.strerror(number))
            return make(*args, **kwargs)

        return maker

    for function in ("mkstemp", "mkdtemp"):
        monkeypatch.setattr(tempfile, function, refuse(getattr(tempfile, function)))
    with pytest.raises(RunError, match=f"cannot be written .*{message}") as caught:
        WRITERS[name].run(place)
    assert str(place.out) in str(caught.value)
    after = place.snapshot()
    assert {file: after.get(file) for file in before} == before
    new = [Path(file) for file in after.keys() - before.keys()]
    assert len(new) == written
    assert not [file for file in new if file.name.startswith(".")]


def test_a_full_disk_from_the_command_line(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: Any, **kwargs: Any) -> Any:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(tempfile, "mkstemp", full)
    before = place.snapshot()
    words = ("cannot be written (No space left on device)", "choose a folder with space")
    assert_one_clear_line(bregma(*TRAIN.command(place)), words)
    assert_nothing_lost(place, before)


def test_an_interrupted_training_can_be_resumed(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    from bregma.console import TrainingProgress

    command = ["train", str(place.json), "--out", str(place.out), *SETTINGS, "--set", "train.checkpoint_seconds=0"]
    stepped = TrainingProgress.stepped
    steps = []

    def interrupt(self: TrainingProgress, loss: float) -> None:
        stepped(self, loss)
        steps.append(loss)
        if len(steps) == 2:
            raise KeyboardInterrupt

    monkeypatch.setattr(TrainingProgress, "stepped", interrupt)
    result = bregma(*command)
    assert result.exit_code == 130
    assert "Traceback" not in result.output
    assert "interrupted; the last checkpoint is kept. To go on: bregma train" in result.stderr
    assert "--resume" in result.stderr
    monkeypatch.undo()
    result = bregma(*command, "--resume")
    assert result.exit_code == 0, result.output
    assert (place.out / "bundle" / "bundle.json").is_file()
    assert (place.out / "history.csv").read_text().count("\n") == 3
