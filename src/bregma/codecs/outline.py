"""Outlines beside points: one map more for each curve that the schema says landmarks draw.

Four ends of axes are few cells of a map; the ellipse that they draw is hundreds, all of which the network can learn
from the same labels. Its target is a ridge, ``exp(-d² / 2σ²)`` with d the distance to the ellipse and the σ of points.
An ellipse is drawn through its diameters as they appear on the input. Turned, flipped, stretched or sheared with the
image they stay conjugate, and so the ellipse right; an elastic deformation bends it by what its four ends do not show,
which is neglected.

Shape suffixes: B batch, N landmarks, K maps of landmarks, O outlines, H and W rows and columns of the maps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from bregma.codecs.base import Codec, Decoded, Labels, OutlineMap, Target
from bregma.codecs.cells import to_cells
from bregma.codecs.exchangeable import highest_cells, one_each
from bregma.codecs.heatmap import HeatmapCodec
from bregma.schema import LandmarkSchema
from bregma.types import OutputSpec

Ends = tuple[int, int, int, int]

_LEAST_CELLS = 0.5
"""A semi-axis shorter than this, in cells, draws no outline."""


def outlines_of(schema: LandmarkSchema) -> tuple[Ends, ...]:
    """Return, of every outline, the positions of the landmarks at the ends of its first axis and of its second."""
    return tuple(_positions(schema, outline.ends) for outline in schema.outlines)


def _positions(schema: LandmarkSchema, names: tuple[str, str, str, str]) -> Ends:
    a, b, c, d = (schema.index(name) for name in names)
    return a, b, c, d


class OutlineCodec:
    """A heatmap codec whose maps are followed by those of outlines.

    Args:
        points: the codec of the landmarks.
        outlines: the ends of the axes of each.
    """

    def __init__(self, points: HeatmapCodec, outlines: tuple[Ends, ...]) -> None:
        self.inner, self.outlines = points, outlines
        self.config, self.stride = points.config, points.stride

    @property
    def outputs(self) -> OutputSpec:
        """Those of the landmarks, with a map more for every outline."""
        inner = self.inner.outputs
        return replace(inner, maps=inner.maps + len(self.outlines))

    def encode(self, labels: Labels, outputs: Mapping[str, Tensor] | None = None) -> Target:
        """Draw landmarks, and a ridge with peak 1 along every outline all of whose points are placed."""
        target = self.inner.encode(labels, outputs)
        maps_BKHW = target.maps
        if maps_BKHW is None:
            return target
        away_BOHW, whole_BO = self._distances(labels)
        ridges = torch.exp(-0.5 * (away_BOHW / self.inner.sigma_cells) ** 2) * whole_BO[..., None, None]
        counts = labels.placed if target.counts is None else target.counts
        return replace(
            target,
            maps=torch.cat([maps_BKHW, ridges], 1),
            peaks=_peaks(target.peaks, maps_BKHW, away_BOHW) if self.config.activation == "sigmoid" else None,
            counts=torch.cat([counts, whole_BO.to(counts.dtype)], 1),
        )

    def _distances(self, labels: Labels) -> tuple[Tensor, Tensor]:
        """Return distances ``(B, O, H, W)`` of cells to the outlines, and which outlines ``(B, O)`` can be drawn."""
        places = [list(own) for own in self.outlines]
        ends_BO42 = to_cells(labels.points_in, self.stride)[:, places]
        rows, columns = (n // self.stride for n in labels.shape)
        u, v = ((ends_BO42[:, :, i] - ends_BO42[:, :, i + 1]) / 2 for i in (0, 2))
        size = torch.hypot(u, v).norm(dim=-1)
        # The shorter semi-axis is their product, which is the determinant, over the longer one.
        thick = (u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0]).abs() > _LEAST_CELLS * size
        # A stand-in for what cannot be drawn keeps the numbers finite; it does not count.
        u, v = (torch.where(thick[..., None], d, d.new_tensor(unit)) for d, unit in ((u, (1.0, 0.0)), (v, (0.0, 1.0))))
        return first_order_distances(ends_BO42.mean(2), u, v, (rows, columns)), thick * labels.placed[:, places].amin(2)

    def points(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Return those of the landmarks' codec."""
        return self.inner.points(self._of_points(outputs), shape)

    def cholesky(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Tensor:
        """Return those of the landmarks' codec."""
        return self.inner.cholesky(self._of_points(outputs), shape)

    def decode(self, outputs: dict[str, Tensor], shape: tuple[int, int]) -> Decoded:
        """Read the landmarks, and give the maps of outlines along: these are put together on the original image."""
        p = self.inner.probability(outputs["maps"][:, self.inner.sharing.maps :].float())
        sigma, stride = self.inner.sigma_cells, self.stride
        maps = tuple(OutlineMap(own, p[:, o], stride, sigma) for o, own in enumerate(self.outlines))
        return replace(self.inner.decode(self._of_points(outputs), shape), outlines=maps)

    def _of_points(self, outputs: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**outputs, "maps": outputs["maps"][:, : self.inner.sharing.maps]}


def with_outlines(points: HeatmapCodec, schema: LandmarkSchema | None) -> Codec:
    """Return a codec that draws the outlines of a schema too, where it declares any and they are asked for."""
    if schema is None or not schema.outlines or not points.config.outline:
        return points
    return OutlineCodec(points, outlines_of(schema))


def _peaks(points_BKHW: Tensor | None, maps_BKHW: Tensor, away_BOHW: Tensor) -> Tensor:
    """Return the cells ``(B, K + O, H, W)`` that hold a point, or that an outline runs through."""
    if points_BKHW is None:
        points_BKHW = highest_cells(maps_BKHW, one_each(maps_BKHW.shape[1]))
    return torch.cat([points_BKHW, away_BOHW.abs() <= 0.5], 1)


def first_order_distances(centre_BO2: Tensor, u_BO2: Tensor, v_BO2: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return signed distances ``(B, O, H, W)`` in cells to ellipses; see :meth:`bregma.ellipse.Ellipse.distance`.

    Args:
        centre_BO2: their centres.
        u_BO2: a semi-diameter of each.
        v_BO2: the one conjugate to it.
        shape: rows and columns.
    """
    columns, rows = (torch.arange(n, device=u_BO2.device, dtype=u_BO2.dtype) for n in (shape[1], shape[0]))
    x = (columns - centre_BO2[..., :1])[..., None, :]
    y = (rows - centre_BO2[..., 1:])[..., :, None]
    (ux, uy), (vx, vy) = (d[..., None, None].unbind(2) for d in (u_BO2, v_BO2))
    det = ux * vy - uy * vx
    p, q = (vy * x - vx * y) / det, (ux * y - uy * x) / det
    # At the centre, where all directions are steepest, the first is taken.
    p = torch.where((p == 0) & (q == 0), 1e-6, p)
    radius = torch.hypot(p, q)
    steepness = torch.hypot(vy * p - uy * q, ux * q - vx * p) / det.abs()
    return (radius - 1) * radius / steepness
