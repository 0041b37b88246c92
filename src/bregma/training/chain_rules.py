"""When a plan takes the chain codec of its own accord."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bregma.codecs.chain import ChainCodecConfig
from bregma.data.fingerprint import Fingerprint
from bregma.losses import ACTIVATIONS
from bregma.schema import Chain, LandmarkSchema

LACKING = 0.05
"""Share of labelled images without some level of a chain from which on their number varies; fewer are gaps."""
_TERMS = {name for name, kind in ACTIVATIONS.items() if kind != "softmax"} | {"offset"}


def why_chain(schema: LandmarkSchema, data: Fingerprint) -> str:
    """Return why a place for every level would not do, or an empty text where it does.

    A schema with several chains has no codec that serves them all.
    """
    if len(schema.chains) != 1:
        return ""
    chain = schema.chains[0]
    if not chain.named:
        return f"the levels of the chain '{chain.name}' have no names, and so no places of their own"
    level, lacking = _least_seen(chain, data)
    if lacking == 0 or lacking < LACKING * data.labelled:
        return ""
    return f"{level} is not on {lacking} of {data.labelled} labelled images: the number of elements varies"


def suits_chain(given: Mapping[str, Any]) -> bool:
    """Tell whether nothing that a recipe asks for, by ``a.b.c`` name, is the heatmap codec's alone."""
    codec = {name.removeprefix("model.codec.") for name in given if name.startswith("model.codec.")}
    terms = {term["name"] for term in given.get("loss", ())}
    activation = given.get("model.codec.activation")
    return codec <= set(ChainCodecConfig.model_fields) and terms <= _TERMS and activation != "softmax"


def _least_seen(chain: Chain, data: Fingerprint) -> tuple[str, int]:
    """Return the level that the most images lack, and how many do; levels that no image shows do not count."""
    prints = {mark.name: mark for mark in data.landmarks}
    found = [("", 0)]
    for level in chain.levels:
        own = [prints[chain.landmark_name(level, part)] for part in chain.parts_of(level)]
        seen = max(mark.visible + mark.occluded for mark in own)
        found += [(level, data.labelled - seen)] if seen else []
    return max(found, key=lambda one: one[1])
