"""ESCM²'s network is MMoE's, one gate and tower more for each imputation; its losses are in tests/test_spaces.py."""

import math

import torch

from polyrank.models.escm2 import ESCM2Config
from polyrank.models.mmoe import MMoE
from polyrank.models.ranker import ARCHITECTURES
from polyrank.nn.inputs import Inputs


def test_a_gate_per_tower_mixes_common_experts():
    """Experts ReLU(x·(2, 4)) = 2 and 4 at x = 1; gate logits (0, ln 3), (ln 3, 0), (0, 0): 3.5, 2.5 and 3."""
    for name in ("escm2_ips", "escm2_dr"):
        model = ARCHITECTURES[name].kind(1, 3, ESCM2Config(experts=2, widths=(1,)))
        assert isinstance(model, MMoE)
        group = model.level.groups[0]
        log3 = math.log(3)
        with torch.no_grad():
            group.weight.copy_(torch.tensor([[2.0, 4.0, 0.0, log3, log3, 0.0, 0.0, 0.0]]))
        x = Inputs(torch.tensor([[1.0]]))
        torch.testing.assert_close(model(x).flatten(), torch.tensor([3.5, 2.5, 3.0]))
        weights = [gate.weights[0].tolist() for gate in model.gates(x)]
        torch.testing.assert_close(torch.tensor(weights), torch.tensor([[0.25, 0.75], [0.75, 0.25], [0.5, 0.5]]))


def test_sizes_of_the_reference_code():
    config = ESCM2Config()
    assert (config.experts, config.widths) == (8, (16,))
