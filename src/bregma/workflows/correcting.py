"""What a finished network gets wrong on its own training images, learned as a correction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from bregma import geometry
from bregma.bundle import PredictConfig, load_bundle
from bregma.correction import Correction, learn_correction
from bregma.data.preprocess import input_matrix
from bregma.prediction.predictor import Predictor
from bregma.types import Case, Prediction
from bregma.workflows.track import Track


def correction_of(bundle: Path, cases: Sequence[Case], track: Track) -> Correction | None:
    """Return the correction for a bundle, as it is applied but for what moves points, from its training images.

    Images of which not all landmarks are labelled and seen tell nothing of how points err together, and are left out.

    Returns:
        None where too few images are left, or a correction does not help.
    """
    loaded = replace(load_bundle(bundle), members=())
    plain = PredictConfig(correction=False, shape_weight=0.0, flag_sd=0.0)
    whole = [case for case in cases if case.landmarks is not None and case.landmarks.labelled.all()]
    answers = track(Predictor([loaded], plain).predict(whole), len(whole), "correct")
    pairs = [
        (case, answer)
        for case, answer in zip(whole, answers, strict=True)
        if isinstance(answer, Prediction) and (answer.presence >= 0.5).all()
    ]
    seen, true = [], []
    for case, answer in pairs:
        to_input = input_matrix(case.frame, loaded.config.preprocess)
        seen.append(geometry.apply(to_input, answer.mean))
        true.append(geometry.apply(to_input, case.landmarks.points if case.landmarks else answer.mean))
    return learn_correction(np.array(seen), np.array(true), [case.subject for case, _ in pairs]) if pairs else None
