"""MAHT-Net, the multi-scale anatomical heatmap transformer: landmarks as queries that know their neighbours.

An encoder gives four scales; a transformer over the deepest mixes them over the whole image; one learned query a
landmark reads the result and the other queries, these with a bias that follows the anatomy's graph; a decoder with
skips goes back up; and a map is the product of its landmark's query with the decoder's features.

The system is known from its authors' public design document and code (2026); there is no paper. From there come sizes,
layers, heads, widths, dropout and the initial biases. The document estimates "about 25, 35 and 55 M" parameters for its
tiny, small and base; what these settings really have is in docs/reference/networks.md.
Differences: the document's graph is written out for the lumbar spine, here it comes from the schema of any anatomy
(:mod:`bregma.networks.relations`) and its bias is learned for every head; a query's embedding takes the place of
separate embeddings of level and corner, which it can learn; maps are products with the query rather than a
convolution's output, and lie at ``map_stride`` rather than at full size only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn import functional

from bregma.errors import ConfigError
from bregma.networks.base import ConvBlock, Heads, Network, OutputSpec
from bregma.networks.encoders import EncoderConfig, create_pyramid
from bregma.networks.relations import Relation, relations
from bregma.networks.transformer import EncoderLayer, QueryLayer, sine_positions
from bregma.schema import LandmarkSchema

_SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"encoder": "tf_efficientnetv2_s", "bridge_layers": 2, "query_layers": 2},
    "small": {"encoder": "tf_efficientnetv2_s", "bridge_layers": 4, "query_layers": 3},
    "base": {"encoder": "convnext_small", "bridge_layers": 6, "query_layers": 4},
}
_FIRST_BIAS = {Relation.SAME: 0.5, Relation.NEIGHBOUR: 0.2, Relation.DISTANT: -0.1}


class MAHTConfig(EncoderConfig):
    """Settings of MAHT-Net."""

    name: Literal["maht"] = "maht"
    size: Literal["tiny", "small", "base"] = "small"
    """Sets ``encoder``, ``bridge_layers`` and ``query_layers`` where they are not given: tiny and small have
    EfficientNetV2-S with 2 + 2 and 4 + 3 layers, base has ConvNeXt-S with 6 + 4."""
    encoder: str = "tf_efficientnetv2_s"
    """Any timm model that gives a feature pyramid; ``bregma info --encoders TEXT`` lists them."""
    width: int = Field(default=256, ge=4)
    """Channels of the transformer; a multiple of 4 and of ``heads``."""
    heads: int = Field(default=8, ge=1)
    """Attention heads of every transformer layer."""
    bridge_layers: int = Field(default=4, ge=1)
    """Transformer layers over the deepest features."""
    query_layers: int = Field(default=3, ge=1)
    """Layers in which landmark queries read the features and each other."""
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout on what every transformer layer adds."""
    decoder_channels: tuple[int, ...] = Field(default=(256, 128, 64, 64, 32), min_length=1)
    """Channels of the decoder, deepest first; as many as there are steps up are used."""

    @model_validator(mode="before")
    @classmethod
    def _fill_size(cls, given: Any) -> Any:
        if not isinstance(given, dict):
            return given
        size = given.get("size", "small")
        return {**_SIZES.get(size, {}), **given} if isinstance(size, str) else given


class MAHTNet(Network):
    """A heatmap transformer whose landmarks attend to each other along the anatomy's graph."""

    parts: ClassVar = {
        "backbone": ("encoder",),
        "bridge": ("bridge",),
        "decoder": ("decoder",),
        "head": ("queries", "embed", "map_bias", "landmark_heads", "heads"),
    }
    uses_schema: ClassVar[bool] = True

    def __init__(
        self, config: MAHTConfig, outputs: OutputSpec, in_channels: int = 1, schema: LandmarkSchema | None = None
    ) -> None:
        super().__init__()
        _check(config, outputs, schema)
        self.outputs, self.map_stride, width = outputs, config.map_stride, config.width
        self.encoder = create_pyramid(config, in_channels)
        info: Any = self.encoder.feature_info
        reductions, channels = list(info.reduction()), list(info.channels())
        self.stride = int(reductions[-1])
        self.bridge = Bridge(channels[-1], width, config.heads, config.bridge_layers, config.dropout)
        skips = dict(zip(reductions[:-1], channels, strict=False))
        self.decoder = Decoder(width, skips, self.stride, config)
        self.queries = LandmarkQueries(outputs.maps, width, config.heads, config.query_layers, config.dropout, schema)
        self.embed = _embedding(width, self.decoder.width)
        self.map_bias = nn.Parameter(torch.zeros(outputs.maps))
        own = {name: size // outputs.maps for name, size in outputs.vectors.items() if size % outputs.maps == 0}
        self.landmark_heads = nn.ModuleDict({name: nn.Linear(width, size) for name, size in own.items()})
        pooled = {name: size for name, size in outputs.vectors.items() if name not in own}
        self.heads = Heads(OutputSpec(0, pooled, outputs.constants), map_channels=width, deep_channels=width)

    def forward(self, image_BCHW: Tensor) -> dict[str, Tensor]:
        """Return the outputs that the codec asked for; vectors of so many numbers a landmark come from its query."""
        self.check_size(image_BCHW.shape)
        features: list[Tensor] = list(self.encoder(image_BCHW))
        deep = self.bridge(features[-1])
        queries_BNC = self.queries(deep.flatten(2).transpose(1, 2))
        fine = self.decoder(deep, features[:-1])
        # The square root keeps maps of wide and narrow decoders alike, as in attention.
        embedded = self.embed(queries_BNC) * fine.shape[1] ** -0.5
        maps = torch.einsum("bnc,bchw->bnhw", embedded, fine) + self.map_bias[:, None, None]
        vectors = {name: head(queries_BNC).flatten(1) for name, head in self.landmark_heads.items()}
        return {"maps": maps, **vectors, **self.heads(None, deep)}


class Bridge(nn.Module):
    """A transformer over the cells of a map, each of which knows its place."""

    def __init__(self, in_channels: int, width: int, heads: int, layers: int, dropout: float) -> None:
        super().__init__()
        self.project = nn.Conv2d(in_channels, width, 1)
        self.layers = nn.Sequential(*(EncoderLayer(width, heads, dropout) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)

    def forward(self, deep_BCHW: Tensor) -> Tensor:
        """Return a map of the same size with the transformer's width, normed over channels."""
        x = self.project(deep_BCHW)
        rows, columns = x.shape[2:]
        tokens = x.flatten(2).transpose(1, 2)
        positions = sine_positions(rows, columns, tokens.shape[2], device=tokens.device)
        tokens = self.norm(self.layers(tokens + positions))
        return tokens.transpose(1, 2).unflatten(2, (rows, columns))


class LandmarkQueries(nn.Module):
    """One learned query a landmark, refined by what it reads on the image and from the other landmarks."""

    related: Tensor

    def __init__(
        self, landmarks: int, width: int, heads: int, layers: int, dropout: float, schema: LandmarkSchema | None
    ) -> None:
        super().__init__()
        # As large as what attention adds: queries that start alike would stay alike for long.
        self.start = nn.Parameter(torch.randn(landmarks, width))
        self.layers = nn.ModuleList(QueryLayer(width, heads, dropout) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.relation_bias: nn.ParameterList | None = None
        if schema is not None:
            classes = torch.tensor(relations(schema))
            related = functional.one_hot(classes, len(Relation)).permute(2, 0, 1).float()
            # (relation, N, N); derived from the schema, so that weights need not carry it.
            self.register_buffer("related", related, persistent=False)
            first = torch.tensor([_FIRST_BIAS[relation] for relation in Relation])
            self.relation_bias = nn.ParameterList(first.repeat(heads, 1) for _ in range(layers))

    def forward(self, memory_BSC: Tensor) -> Tensor:
        """Return refined queries ``(B, N, C)``."""
        x = self.start.expand(len(memory_BSC), -1, -1)
        for number, layer in enumerate(self.layers):
            x = layer(x, memory_BSC, self.bias(number))
        return self.norm(x)

    def bias(self, layer: int) -> Tensor | None:
        """Return what a layer adds to the logits of attention between landmarks, ``(heads, N, N)``."""
        if self.relation_bias is None:
            return None
        return torch.einsum("hr,rnm->hnm", self.relation_bias[layer], self.related)


class Decoder(nn.Module):
    """Steps up to the maps' stride, each joined with the encoder's features of that scale where it has some."""

    def __init__(self, in_channels: int, skips: dict[int, int], stride: int, config: MAHTConfig) -> None:
        super().__init__()
        steps = (stride // config.map_stride).bit_length() - 1
        widths = config.decoder_channels[:steps]
        if len(widths) < steps:
            raise ConfigError(
                f"the decoder takes {steps} steps up from '{config.encoder}' to maps at 1/{config.map_stride}",
                where="network.decoder_channels",
                expected=f"{steps} numbers or more",
                got=str(len(widths)),
            )
        scales = [stride >> step for step in range(1, steps + 1)]
        self.skip_index = [list(skips).index(scale) if scale in skips else None for scale in scales]
        inputs = [in_channels, *widths[:-1]]
        self.blocks = nn.ModuleList(
            ConvBlock(before + skips.get(scale, 0), after)
            for before, after, scale in zip(inputs, widths, scales, strict=True)
        )
        self.width = widths[-1]

    def forward(self, deep_BCHW: Tensor, features: Sequence[Tensor]) -> Tensor:
        """Return features at the maps' stride; ``features`` are the encoder's, finest first."""
        x = deep_BCHW
        for index, block in zip(self.skip_index, self.blocks, strict=True):
            x = functional.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            x = block(x if index is None else torch.cat([x, features[index]], dim=1))
        return x


def _embedding(width: int, out: int) -> nn.Sequential:
    """From a query to the weights of its map, small at first, so that maps start flat."""
    last = nn.Linear(width, out)
    nn.init.normal_(last.weight, std=0.01)
    nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Linear(width, width), nn.GELU(), last)


def _check(config: MAHTConfig, outputs: OutputSpec, schema: LandmarkSchema | None) -> None:
    if not outputs.maps:
        raise ConfigError("the network 'maht' gives maps", where="network.name", fix="choose a heatmap codec")
    if config.width % 4 or config.width % config.heads:
        raise ConfigError(
            f"the transformer's width does not divide by 4 and into {config.heads} heads",
            where="network.width",
            expected="a multiple of 4 and of network.heads",
            got=str(config.width),
        )
    if schema is not None and len(schema) != outputs.maps:
        raise ConfigError(
            f"the network 'maht' needs a map for each of the {len(schema)} landmarks of '{schema.name}'",
            where="network.name",
            got=f"a codec with {outputs.maps} maps",
        )
