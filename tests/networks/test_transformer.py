"""Transformer layers against torch's own attention and hand-worked positions."""

import numpy as np
import torch

from bregma.networks.transformer import Attention, sine_positions


def seeded(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_attention_equals_that_of_torch():
    torch.manual_seed(0)
    ours, theirs = Attention(12, 3), torch.nn.MultiheadAttention(12, 3, batch_first=True)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([ours.query.weight, ours.key.weight, ours.value.weight]))
        theirs.in_proj_bias.copy_(torch.cat([ours.query.bias, torch.zeros(12), ours.value.bias]))
        theirs.out_proj.load_state_dict(ours.out.state_dict())
    x, memory, bias = seeded(2, 5, 12), seeded(2, 7, 12, seed=1), seeded(3, 5, 7, seed=2)
    expected, _ = theirs(x, memory, memory, attn_mask=bias.repeat(2, 1, 1))
    torch.testing.assert_close(ours(x, memory, bias), expected, rtol=1e-5, atol=1e-6)
    without, _ = theirs(x, memory, memory)
    torch.testing.assert_close(ours(x, memory), without, rtol=1e-5, atol=1e-6)
    assert (expected - without).abs().max() > 0.01


def test_positions_of_a_small_map_are_those_worked_out_by_hand():
    # One row, two columns, one rate: the row lies at half of the circle, the columns at a quarter and three quarters.
    found = sine_positions(1, 2, 4, device=torch.device("cpu"))
    np.testing.assert_allclose(found.numpy(), [[0, -1, 1, 0], [0, -1, -1, 0]], atol=1e-6)


def test_every_cell_has_a_position_of_its_own_in_row_major_order():
    found = sine_positions(6, 9, 16, device=torch.device("cpu")).reshape(6, 9, 16)
    assert torch.equal(found[2, :, :8], found[2, :1, :8].expand(9, 8))  # The first half tells the row.
    assert torch.equal(found[:, 3, 8:], found[:1, 3, 8:].expand(6, 8))  # The second half tells the column.
    cells = found.flatten(0, 1)
    assert torch.pdist(cells).min() > 0.05
