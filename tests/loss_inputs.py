"""What loss terms are tried on: inputs by hand, random ones, and a small anatomy that every term finds something in."""

import torch

from bregma.losses import LOSSES, LossInput
from bregma.schema import schema_from_dict

# Landmarks 0..4: a midline of two, a mirror pair, a spare point; 5..14: two whole vertebrae and a sacral endplate.
SCHEMA = schema_from_dict(
    {
        "name": "trial",
        "title": "Trial",
        "landmarks": [{"name": name, "label": name} for name in ("top", "bottom", "left", "right", "spare")],
        "mirror_pairs": [["left", "right"]],
        "edges": [["top", "bottom"], ["left", "spare"], ["A_ua", "A_ub"]],
        "chains": [
            {
                "name": "column",
                "levels": ["A", "B", "S"],
                "parts": {"ua": "upper, a", "ub": "upper, b", "la": "lower, a", "lb": "lower, b"},
                "partial": {"S": ["ua", "ub"]},
            }
        ],
    },
    where="trial",
)


def unused():
    raise AssertionError("this term does not look at points")


def loss_input(**given):
    """A loss input of one image and one landmark, with what a test gives."""
    one = torch.ones(given.get("placed", torch.ones(1, 1)).shape)
    empty = {"maps": None, "target_maps": None, "presence": None, "points": unused, "cholesky": unused}
    plain = {"target_points": torch.zeros(*one.shape, 2), "placed": one, "present": one, "known": one}
    return LossInput(**{"schema": SCHEMA, **empty, **plain, **given})


def maps_input(maps, target, **given):
    return loss_input(maps=torch.tensor([[maps]]), target_maps=torch.tensor([[target]]), **given)


def points_input(points, target, **given):
    """A loss input of one image; missing points are told by ``placed``."""
    predicted, true = torch.as_tensor(points)[None], torch.as_tensor(target)[None]
    plain = {"placed": torch.ones(predicted.shape[:2], dtype=predicted.dtype), **given}
    return loss_input(points=lambda: predicted, target_points=true, **plain)


def value(config, x):
    return LOSSES[config.name](config, x).item()


def random_input(seed=0, batch=2, shape=(4, 5)):
    """Random outputs that ask for gradients, with plausible targets, in double precision."""
    draw = torch.Generator().manual_seed(seed)
    landmarks = len(SCHEMA)

    def normal(*size):
        return torch.randn(size, generator=draw, dtype=torch.float64)

    leaves = {
        "maps": normal(batch, landmarks, *shape),
        "points": 6 * normal(batch, landmarks, 2),
        "cholesky": torch.tril(0.3 * normal(batch, landmarks, 2, 2)) + 1.5 * torch.eye(2, dtype=torch.float64),
        "presence": normal(batch, landmarks),
        "sigma": 2.0 + torch.linspace(0, 1, batch * landmarks, dtype=torch.float64).view(batch, landmarks),
        "fields": normal(batch, landmarks, 2, 3),
        # As many quantities as landmarks, so that one index leaves out either.
        "values": normal(batch, landmarks),
        "log_variance": normal(batch, landmarks),
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    fixed = {
        "target_maps": normal(batch, landmarks, *shape).sigmoid(),
        "target_fields": normal(batch, landmarks, 2, 3),
        "target_points": 6 * normal(batch, landmarks, 2),
        "placed": torch.ones(batch, landmarks, dtype=torch.float64),
        "present": torch.ones(batch, landmarks, dtype=torch.float64),
        "known": torch.ones(batch, landmarks, dtype=torch.float64),
        "target_values": normal(batch, landmarks),
        "values_known": torch.ones(batch, landmarks, dtype=torch.float64),
    }
    return leaves, fixed


def from_leaves(leaves, fixed):
    return LossInput(
        maps=leaves["maps"],
        presence=leaves["presence"],
        sigma=leaves["sigma"],
        fields=leaves["fields"],
        values=leaves["values"],
        log_variance=leaves["log_variance"],
        field_cells=fixed["placed"][..., None, None].expand_as(leaves["fields"]),
        points=lambda: leaves["points"],
        cholesky=lambda: leaves["cholesky"],
        schema=SCHEMA,
        **fixed,
    )
