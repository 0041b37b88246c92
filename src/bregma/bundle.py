"""A trained model as it is deployed: one folder with weights, schema, preprocessing, codec and provenance; no pickle.

bundle/
bundle.json          format version, settings, provenance, and the SHA-256 of the other files
schema.json
weights.safetensors
shape_model.json     how the landmarks lie to each other; absent where the training images were too few to tell
correction.json      how predicted points err together; absent where nobody asked for it, or it did not help
regression.json      how quantities are read off features; with regression.safetensors, its fitted numbers; absent where
                     the network itself gives them
conformal.json       how far off the quantities of other subjects were; absent where that is not known
roi/                 a bundle of its own, whose landmarks enclose what these features are pooled over, or the part of
                     the image that is seen; absent likewise
close_up/            a bundle of its own, which looks again at elements or an outline; absent where nobody asked for it
members/2/ ...       the other networks of an ensemble, each a bundle of its own; absent where there is one network
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bregma.close_up import RefineConfig, close_up_schema
from bregma.codecs import AnyCodecConfig, Codec, build_codec
from bregma.codecs.heatmap import HeatmapCodecConfig
from bregma.config import Config, validate
from bregma.conformal import Conformal
from bregma.correction import Correction
from bregma.crop import CropConfig
from bregma.data.preprocess import PreprocessConfig
from bregma.errors import BundleError, ConfigError, InputError, RunError, SchemaError
from bregma.files import atomic_path, read_json, sha256_file, write_json
from bregma.networks import AnyNetworkConfig, Network, build_network
from bregma.networks.encoders import EncoderConfig
from bregma.networks.timm_unet import TimmUNetConfig
from bregma.regression import FILES as REGRESSION_FILES
from bregma.regression import Regression, load_regression, save_regression
from bregma.schema import LandmarkSchema, schema_from_dict
from bregma.shape_model import ShapeModel

FORMAT = 1
"""Version of the folder's layout; a reader refuses any other."""
MOST_NETWORKS = 32
"""Of an ensemble."""
_FILES = ("schema.json", "weights.safetensors")
LIGHT_SHAPE_WEIGHT = 0.002
"""Weight of the shape model where nobody asks for another."""
_SHAPE = "shape_model.json"
_CORRECTION = "correction.json"
_CLOSE_UP = "close_up/bundle.json"
"""Holds the hashes of the other files of that bundle."""
_ROI = "roi/bundle.json"
_MEMBER = "members/{}/bundle.json"
"""Of the further networks, counted from 2."""
_CONFORMAL = "conformal.json"
_OPTIONAL = {_SHAPE, _CORRECTION, _CLOSE_UP, _ROI, _CONFORMAL, *REGRESSION_FILES}
_COPY = "copy the whole bundle again from its source"


class ModelConfig(Config):
    """All that turns an image into landmarks."""

    preprocess: PreprocessConfig = PreprocessConfig()
    network: AnyNetworkConfig = TimmUNetConfig()
    """Its name and settings (``bregma info networks``)."""
    codec: AnyCodecConfig = HeatmapCodecConfig()
    """How landmarks become targets and outputs landmarks: its name and settings (``bregma info codecs``)."""


class PredictConfig(Config):
    """How a bundle is applied to images."""

    rotations_deg: tuple[float, ...] = ()
    """Further views, turned by these angles."""
    zooms: tuple[Annotated[float, Field(gt=0)], ...] = ()
    """Further views, zoomed by these factors."""
    flip: bool = False
    """A further mirrored copy of every view, where the schema allows flips."""
    shape_weight: float | None = Field(default=None, ge=0, le=1)
    """How far the points give way to the shapes seen in training: 0 leaves them where the network saw them, 1 weighs
    its covariances in full. None is 0.002 where the bundle has a shape model: enough to call back a point that
    contradicts all the others, too little to move one that was seen clearly. More is for steady shapes on unclear
    images; it pulls what is out of the ordinary towards the ordinary. None is 0 for the codecs ``chain`` and
    ``slots``, whose elements are not all named, and for whom a wrong name is no reason to move a point."""
    flag_sd: float = Field(default=6.0, ge=0)
    """Points further than so many standard deviations from where the others say they are, by the shapes seen in
    training, are flagged in the prediction with the reason; 0 flags none."""
    pair_weight: float = Field(default=0.2, ge=0)
    """How much the shapes seen in training count, against what the maps show, where the points of sets that cannot be
    told apart are chosen among the peaks of their maps, all sets together; 0 takes the strongest peaks of each. Without
    a shape model it does nothing. Weights from 0.5 on were worse than none on fetal heads that a network knew half."""
    correction: bool = False
    """Move all points by what those predicted on the training images had to be moved, as a linear function of all of
    them. It is learned at the end of the training, and only where cross-validation on these images finds that it helps.
    It does where the labels themselves leave a place open, so that a network errs on its training images as on others,
    and not where it knows them by heart."""
    refine: bool = True
    """Look again at every element of a chain, or along an outline, where the bundle has a network for that."""
    batch_size: int = Field(default=8, ge=1)
    """Views that the network sees at once."""
    accelerator: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """The device; ``auto`` takes a GPU where there is one."""


class _Header(Config):
    """What ``bundle.json`` holds."""

    format: int
    name: str
    model: ModelConfig
    predict: PredictConfig = PredictConfig()
    crop: CropConfig | None = None
    refine: RefineConfig | None = None
    ensemble: int = Field(default=1, ge=1, le=MOST_NETWORKS)
    """Networks whose answers are averaged: this one and the members."""
    sha256: dict[str, str]
    """File to the hash of its bytes."""
    provenance: dict[str, Any]


@dataclass(frozen=True)
class Bundle:
    """A loaded model, ready to predict.

    Attributes:
        name: name and first digits of the weights' hash, as predictions record it.
        schema: the anatomy.
        config: preprocessing, network and codec.
        network: with its weights, in evaluation mode.
        codec: fits the network.
        provenance: where the model comes from.
        shape_model: how the landmarks lie to each other on the training images, if these were enough to tell.
        predict: how it is applied unless somebody asks for something else.
        correction: how the points err together, if that was asked for and helps.
        refine: what close-ups of elements show, if there is a network for them.
        close_up: that network, which knows the parts of one element, or the line that an outline is.
        regression: gives the quantities in place of the network's own last layers, if one was fitted.
        roi: finds the landmarks that enclose what the regression looks at, or the part of the image that the network
            sees, if that is not the whole.
        conformal: quantity to how far off it was in subjects that were not learned from.
        members: the other networks of an ensemble; each is a model of its own.
        crop: which part of an image the network sees; None is the whole.
    """

    name: str
    schema: LandmarkSchema
    config: ModelConfig
    network: Network
    codec: Codec
    provenance: Mapping[str, Any]
    shape_model: ShapeModel | None = None
    predict: PredictConfig = field(default_factory=PredictConfig)
    correction: Correction | None = None
    refine: RefineConfig | None = None
    close_up: Bundle | None = None
    regression: Regression | None = None
    roi: Bundle | None = None
    conformal: Mapping[str, Conformal] = field(default_factory=dict)
    members: tuple[Bundle, ...] = ()
    crop: CropConfig | None = None

    @property
    def slices(self) -> int:
        """Neighbouring slices of a volume that are read for a prediction."""
        fitted = 1 if self.regression is None else self.regression.config.slices
        found = 1 if self.roi is None else self.roi.slices
        beside = 0 if self.crop is None else 2 * self.crop.slices
        own = max(self.config.preprocess.slices, fitted, found) + beside
        return max(own, *(member.slices for member in self.members), 1)

    @property
    def parameters(self) -> int:
        """Number of the networks' weights; members look at the same region of interest."""
        members = [replace(member, roi=None) for member in self.members]
        parts = [part.parameters for part in (self.close_up, self.roi, *members) if part is not None]
        return sum(weight.numel() for weight in self.network.parameters()) + sum(parts)

    def shape_weight(self, asked: float | None) -> float:
        """Return the weight of the shape model; see :attr:`PredictConfig.shape_weight`."""
        if asked is None:
            usable = self.shape_model is not None and not self.codec.outputs.renumbered
            return LIGHT_SHAPE_WEIGHT if usable else 0.0
        return asked

    def __repr__(self) -> str:
        return f"Bundle({self.name!r}, {self.schema})"


def build_model(config: ModelConfig, schema: LandmarkSchema) -> tuple[Network, Codec]:
    """Build codec and network for a schema, and check that they fit each other and the input size.

    Raises:
        ConfigError: a setting of one does not fit the other; names it.
    """
    codec = build_codec(config.codec, len(schema), config.network.map_stride, schema)
    network = build_network(config.network, codec.outputs, in_channels=config.preprocess.slices, schema=schema)
    network.check_size(config.preprocess.size)
    return network, codec


def save_bundle(
    folder: Path,
    *,
    name: str,
    schema: LandmarkSchema,
    config: ModelConfig,
    weights: Mapping[str, Tensor],
    provenance: Mapping[str, Any],
    shape_model: ShapeModel | None = None,
    predict: PredictConfig | None = None,
    correction: Correction | None = None,
    refine: RefineConfig | None = None,
    close_up: Path | None = None,
    regression: Regression | None = None,
    roi: Path | None = None,
    conformal: Mapping[str, Conformal] | None = None,
    members: Sequence[Path] = (),
    crop: CropConfig | None = None,
) -> None:
    """Write a bundle, all or nothing; an older one at the same place is replaced only when the new one is complete.

    ``close_up``, ``roi`` and ``members`` are folders of bundles, which are copied into this one.

    Raises:
        RunError: the folder cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    except OSError as error:
        raise RunError(f"cannot be written ({error.strerror})", where=folder) from error
    try:
        write_json(temporary / "schema.json", schema.to_dict())
        save_tensors(temporary / "weights.safetensors", weights)
        if shape_model is not None:
            write_json(temporary / _SHAPE, shape_model.to_dict())
        if correction is not None:
            write_json(temporary / _CORRECTION, correction.to_dict())
        if conformal:
            write_json(temporary / _CONFORMAL, {name: known.to_dict() for name, known in conformal.items()})
        if regression is not None:
            save_regression(temporary, regression)
        hashes = {file.name: sha256_file(file) for file in sorted(temporary.iterdir())}
        others = {_MEMBER.format(number): member for number, member in enumerate(members, 2)}
        for name_of_part, part in {_CLOSE_UP: close_up, _ROI: roi, **others}.items():
            if part is not None:
                copy_bundle(part, (temporary / name_of_part).parent)
                hashes[name_of_part] = sha256_file(temporary / name_of_part)
        header = _Header(
            format=FORMAT,
            name=name,
            model=config,
            predict=_portable(predict or PredictConfig()),
            # Where the landmark model lay is of no use elsewhere; it lies in the bundle.
            crop=None if crop is None else crop.model_copy(update={"roi": None}),
            refine=None if close_up is None else refine,
            ensemble=1 + len(members),
            sha256=hashes,
            provenance=dict(provenance),
        )
        write_json(temporary / "bundle.json", header.to_dict())
        temporary.chmod(0o755)
        _replace_folder(temporary, folder)
    except OSError as error:
        raise RunError(f"cannot be written ({error.strerror or error})", where=folder) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def copy_bundle(source: Path, target: Path) -> None:
    """Copy the files of a bundle that it names, and nothing else that lies beside them.

    Raises:
        BundleError: it is none.
        OSError: a file cannot be read or written.
    """
    header = _header(source)
    target.mkdir(parents=True)
    shutil.copyfile(source / "bundle.json", target / "bundle.json")
    for name in header.sha256:
        if name.endswith("/bundle.json"):
            copy_bundle((source / name).parent, (target / name).parent)
        else:
            shutil.copyfile(source / name, target / name)


def _portable(predict: PredictConfig) -> PredictConfig:
    """Leave out the device: another machine may have another one."""
    return predict.model_copy(update={"accelerator": PredictConfig().accelerator})


def save_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: dict[str, str] | None = None) -> None:
    """Write tensors and texts as one safetensors file, all or nothing.

    Raises:
        RunError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        try:
            save_file({name: t.detach().cpu().contiguous() for name, t in tensors.items()}, temporary, metadata)
        except SafetensorError as error:
            # The library has an error of its own for a full disk, unlike everything else that writes.
            raise OSError(str(error)) from error


def load_bundle(folder: str | Path) -> Bundle:
    """Load and verify a bundle.

    Raises:
        BundleError: not a bundle, another format version, a file changed since it was written, settings or weights
            that do not fit.
    """
    root = find_bundle(folder)
    header = _header(root)
    for file, expected in header.sha256.items():
        _check_hash(root / file, expected)
    try:
        schema = schema_from_dict(read_json(root / "schema.json"), where=str(root / "schema.json"))
        network, codec = _without_download(header.model, schema)
        shape_model = _load_shape_model(root / _SHAPE, len(schema)) if _SHAPE in header.sha256 else None
        correction = _load_correction(root / _CORRECTION, len(schema)) if _CORRECTION in header.sha256 else None
        conformal = _load_conformal(root / _CONFORMAL) if _CONFORMAL in header.sha256 else {}
        regression = load_regression(root) if REGRESSION_FILES[0] in header.sha256 else None
    except (InputError, SchemaError, ConfigError) as error:
        raise BundleError(f"the bundle contradicts itself ({error})", where=root) from error
    _load_weights(network, root / "weights.safetensors")
    return Bundle(
        name=f"{header.name}@{_weights_hash(header)[:8]}",
        schema=schema,
        config=header.model,
        network=network.eval(),
        codec=codec,
        provenance=header.provenance,
        shape_model=shape_model,
        predict=header.predict,
        correction=correction,
        refine=header.refine,
        close_up=_load_close_up(root, header, schema),
        regression=regression,
        conformal=conformal,
        roi=load_bundle((root / _ROI).parent) if _ROI in header.sha256 else None,
        members=_load_members(root, header, schema),
        crop=header.crop,
    )


def _weights_hash(header: _Header) -> str:
    """Return a hash of all the networks' weights: an ensemble is another model than its first network."""
    own, others = header.sha256["weights.safetensors"], _member_files(header)
    if not others:
        return own
    return hashlib.sha256("\n".join([own, *(header.sha256[name] for name in others)]).encode()).hexdigest()


def _member_files(header: _Header) -> list[str]:
    return [_MEMBER.format(number) for number in range(2, header.ensemble + 1)]


def _load_members(root: Path, header: _Header, schema: LandmarkSchema) -> tuple[Bundle, ...]:
    members = []
    for name in _member_files(header):
        member = load_bundle((root / name).parent)
        if member.schema != schema:
            raise BundleError("is of another schema", where=root / name, expected=schema.name, got=member.schema.name)
        if member.members:
            raise BundleError("is an ensemble itself", where=root / name, expected="a single network", fix=_COPY)
        members.append(member)
    return tuple(members)


def _load_close_up(root: Path, header: _Header, schema: LandmarkSchema) -> Bundle | None:
    if header.refine is None or _CLOSE_UP not in header.sha256:
        return None
    close_up = load_bundle((root / _CLOSE_UP).parent)
    expected = close_up_schema(schema, header.refine)
    if close_up.schema.names != expected.names:
        got, where = ", ".join(close_up.schema.names), root / _CLOSE_UP
        raise BundleError("is of other parts", where=where, expected=", ".join(expected.names), got=got)
    return close_up


def find_bundle(folder: str | Path) -> Path:
    """Return the bundle's folder, given it or the run folder that holds it.

    Raises:
        BundleError: there is none.
    """
    root = Path(folder)
    for candidate in (root, root / "bundle"):
        if (candidate / "bundle.json").is_file():
            return candidate
    raise BundleError(
        "is not a bundle",
        where=root,
        expected="a folder with bundle.json, or a run folder that holds one",
        fix="give the run folder that `bregma train` printed; if training was interrupted, finish it with --resume",
    )


def _header(root: Path) -> _Header:
    path = root / "bundle.json"
    try:
        data = read_json(path)
    except InputError as error:
        raise BundleError(error.problem, where=error.where, fix=_COPY) from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        got = repr(data.get("format")) if isinstance(data, dict) else type(data).__name__
        raise BundleError(
            "the bundle has another format version",
            where=path,
            expected=str(FORMAT),
            got=got,
            fix="use the Bregma version that wrote it, or train again",
        )
    header = validate(_Header, data, where=str(path), error=BundleError)
    needed = [*_FILES, *_member_files(header)]
    if set(header.sha256) - _OPTIONAL != set(needed):
        raise BundleError(
            "the bundle's hashes are not complete", where=path, expected=" and ".join(needed), got=str([*header.sha256])
        )
    return header


def _check_hash(path: Path, expected: str) -> None:
    if not path.is_file():
        raise BundleError("a file of the bundle is missing", where=path, fix=_COPY)
    if sha256_file(path) != expected:
        raise BundleError("has changed since the bundle was written", where=path, fix=_COPY)


def _without_download(config: ModelConfig, schema: LandmarkSchema) -> tuple[Network, Codec]:
    """Build the model without fetching published weights, which the bundle's own are about to replace."""
    if isinstance(config.network, EncoderConfig):
        config = config.model_copy(update={"network": config.network.model_copy(update={"pretrained": "none"})})
    return build_model(config, schema)


def _load_weights(network: Network, path: Path) -> None:
    try:
        weights = load_file(path)
    except (SafetensorError, OSError) as error:
        raise BundleError(f"cannot be read ({error})", where=path) from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        detail = str(error).splitlines()[-1].strip()
        raise BundleError(f"the weights do not fit the network ({detail})", where=path) from error


def _load_shape_model(path: Path, landmarks: int) -> ShapeModel:
    model = ShapeModel.from_dict(read_json(path))
    if len(model) != landmarks:
        raise InputError("the shape model is of another schema", expected=f"{landmarks} landmarks", got=str(len(model)))
    return model


def _load_conformal(path: Path) -> dict[str, Conformal]:
    data = read_json(path)
    if not isinstance(data, dict):
        raise InputError("holds no residuals as Bregma writes them", where=path)
    return {str(name): Conformal.from_dict(known) for name, known in data.items()}


def _load_correction(path: Path, landmarks: int) -> Correction:
    correction = Correction.from_dict(read_json(path))
    if len(correction) != landmarks:
        got = str(len(correction))
        raise InputError("the correction is of another schema", expected=f"{landmarks} landmarks", got=got)
    return correction


def _replace_folder(new: Path, target: Path) -> None:
    old = target.with_name(f".{target.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        target.replace(old)
    try:
        new.replace(target)
    except OSError:
        if old.exists():
            old.replace(target)
        raise
    shutil.rmtree(old, ignore_errors=True)
