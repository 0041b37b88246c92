"""Terms on points and on presence against hand-worked values."""

import math

import pytest
import torch

from bregma.losses import (
    LOSSES,
    EuclideanConfig,
    GaussianNLLConfig,
    HuberConfig,
    L1Config,
    L2Config,
    PresenceConfig,
    SmoothL1Config,
    WingConfig,
)
from loss_inputs import loss_input, points_input, value

# Errors 3, -14 and 0.5, 0.
AWAY = ([[3.0, -14.0], [1.5, 2.0]], [[0.0, 0.0], [1.0, 2.0]])


def test_wing_by_hand():
    # Width 10, ε 2: 10 ln(1 + 3/2) for an error of 3; 14 - (10 - 10 ln 6) for one of 14; mean of x and y.
    x = points_input([[3.0, -14.0]], [[0.0, 0.0]])
    expected = (10 * math.log(2.5) + 14 - (10 - 10 * math.log(6))) / 2
    assert value(WingConfig(), x) == pytest.approx(expected, rel=1e-6)


def test_gaussian_nll_by_hand():
    # L = [[2, 0], [1, 3]]: Σ = [[4, 2], [2, 10]], det 36, Σ⁻¹ = [[10, -2], [-2, 4]] / 36; d = (2, -4).
    x = points_input([[2.0, -4.0]], [[0.0, 0.0]], cholesky=lambda: torch.tensor([[[[2.0, 0.0], [1.0, 3.0]]]]))
    quadratic = (10 * 4 + 2 * 2 * 2 * 4 + 4 * 16) / 36
    assert value(GaussianNLLConfig(), x) == pytest.approx(0.5 * quadratic + 0.5 * math.log(36))


def test_gaussian_nll_is_least_at_the_true_covariance():
    away = torch.randn(4000, 1, 2, generator=torch.Generator().manual_seed(0)) * 3.0
    here = {"points": lambda: away, "target_points": torch.zeros_like(away), "placed": torch.ones(4000, 1)}

    def loss(sd):
        factors = (sd * torch.eye(2)).expand(4000, 1, 2, 2)
        return value(GaussianNLLConfig(), loss_input(**here, cholesky=lambda: factors))

    assert min((2.0, 2.7, 3.0, 3.3, 4.0), key=loss) == 3.0


def test_presence_by_hand():
    # Logit ln 3 is a probability of 3/4: -ln(3/4) where present, -ln(1/4) where absent; the unknown third is left out.
    x = loss_input(
        presence=torch.tensor([[math.log(3.0), math.log(3.0), 50.0]]),
        present=torch.tensor([[1.0, 0.0, 0.0]]),
        known=torch.tensor([[1.0, 1.0, 0.0]]),
        placed=torch.tensor([[1.0, 0.0, 0.0]]),
    )
    assert value(PresenceConfig(), x) == pytest.approx((math.log(4 / 3) + math.log(4)) / 2)


def test_smooth_l1_by_hand():
    # β 2: 3 - 1, 14 - 1, 0.5² / 4, 0; mean of four numbers.
    assert value(SmoothL1Config(beta=2.0), points_input(*AWAY)) == pytest.approx((2 + 13 + 0.0625) / 4)


def test_huber_by_hand():
    # δ 4: 3² / 2, 4 (14 - 2), 0.5² / 2, 0; mean of four numbers.
    assert value(HuberConfig(delta=4.0), points_input(*AWAY)) == pytest.approx((4.5 + 48 + 0.125) / 4)


@pytest.mark.parametrize(
    ("config", "reference"), [(SmoothL1Config(beta=0.7), "smooth_l1"), (HuberConfig(delta=0.7), "huber")]
)
def test_smooth_l1_and_huber_agree_with_torch(config, reference):
    draw = torch.Generator().manual_seed(0)
    points, target = torch.randn(2, 5, 2, generator=draw), torch.randn(2, 5, 2, generator=draw)
    x = loss_input(points=lambda: points, target_points=target, placed=torch.ones(2, 5))
    torch_loss = {
        "smooth_l1": torch.nn.SmoothL1Loss(beta=0.7),
        "huber": torch.nn.HuberLoss(delta=0.7),
    }[reference]
    assert value(config, x) == pytest.approx(torch_loss(points, target).item(), rel=1e-6)


def test_euclidean_by_hand():
    # Errors (3, -4) and (0, 0): distances 5 and 0.
    x = points_input([[3.0, -4.0], [1.0, 1.0]], [[0.0, 0.0], [1.0, 1.0]])
    assert value(EuclideanConfig(), x) == pytest.approx(2.5)


def test_euclidean_has_a_gradient_where_there_is_no_error():
    points = torch.ones(1, 1, 2, requires_grad=True)
    LOSSES["euclidean"](EuclideanConfig(), loss_input(points=lambda: points, target_points=points.detach())).backward()
    assert (points.grad == 0).all()


def test_l1_and_l2_by_hand():
    assert value(L1Config(), points_input(*AWAY)) == pytest.approx(17.5 / 4)
    assert value(L2Config(), points_input(*AWAY)) == pytest.approx((9 + 196 + 0.25) / 4)
