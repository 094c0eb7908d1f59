import json
import math
from itertools import pairwise

import numpy as np
import pytest
import torch

from polyrank.data.loader import Loader
from polyrank.data.store import encode_to
from polyrank.evaluation.gates import gate_utilisation
from polyrank.models.ranker import ARCHITECTURES, Ranker, RankerConfig
from polyrank.nn.experts import SHARED, GateWeights


class Scripted:
    """A ranker whose gates give what they are told; a batch has as many rows as the first gate."""

    imputed = ()

    def __init__(self, *gates):
        self.given = gates

    def eval(self):
        return self

    def gates(self, batch):
        return [GateWeights(g.level, g.owner, g.experts, g.weights[batch.first : batch.end]) for g in self.given]


class Rows:
    def __init__(self, first, end):
        self.first, self.end, self.rows = first, end, end - first


def entropy(*weights):
    return -sum(w * math.log(w) for w in weights if w)


class TestByHand:
    WEIGHTS = torch.tensor([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.2, 0.3, 0.5]])
    GATE = GateWeights(1, 1, ((SHARED, 0), (SHARED, 1), (1, 0)), WEIGHTS)

    @pytest.mark.parametrize("cuts", [(0, 3), (0, 1, 3), (0, 1, 2, 3)])
    def test_means_over_rows_however_they_are_batched(self, cuts):
        batches = [Rows(first, end) for first, end in pairwise(cuts)]
        (found,) = gate_utilisation(Scripted(self.GATE), batches, ["click", "like"])
        assert found["weights"] == pytest.approx([1.7 / 3, 0.8 / 3, 0.5 / 3])
        assert found["entropy"] == pytest.approx((math.log(2) + 0 + entropy(0.2, 0.3, 0.5)) / 3)
        assert found["gate"] == "like"
        assert found["level"] == 1
        assert found["experts"] == ["shared 1", "shared 2", "like 1"]

    def test_the_mean_is_not_the_entropy_of_the_mean(self):
        # Each row takes one expert: nothing is mixed, though on average both are used.
        gate = GateWeights(1, 0, ((SHARED, 0), (SHARED, 1)), torch.eye(2))
        (found,) = gate_utilisation(Scripted(gate), [Rows(0, 2)], ["click"])
        assert found["weights"] == [0.5, 0.5]
        assert found["entropy"] == pytest.approx(0.0, abs=1e-12)

    def test_each_level_and_owner_apart(self):
        gates = [
            GateWeights(level, owner, ((SHARED, 0), (0, 0)), torch.tensor([[share, 1 - share]]))
            for level, owner, share in ((1, 0, 0.1), (1, SHARED, 0.2), (2, 0, 0.3))
        ]
        found = gate_utilisation(Scripted(*gates), [Rows(0, 1)], ["click"])
        shares = {(gate["level"], gate["gate"]): gate["weights"][0] for gate in found}
        assert shares == pytest.approx({(1, "click"): 0.1, (1, "shared"): 0.2, (2, "click"): 0.3})

    def test_no_batch_no_gate(self):
        assert gate_utilisation(Scripted(self.GATE), [], ["click", "like"]) == []


class TestArchitectures:
    @pytest.fixture(scope="class")
    @staticmethod
    def prepared(fitted, tmp_path_factory):
        encoders, source = fitted(100)
        return encoders, encode_to(tmp_path_factory.mktemp("encoded") / "data", encoders, source)

    @staticmethod
    def utilisation(prepared, name, spread=0.0):
        encoders, data = prepared
        torch.manual_seed(0)
        options = ARCHITECTURES[name].config()
        ranker = Ranker(
            encoders.schema.tasks, encoders.statistics, encoders.layout, RankerConfig(architecture=name), options
        )
        if spread:
            for parameter in ranker.parameters():
                torch.nn.init.normal_(parameter, std=spread)
        names = encoders.schema.task_names
        return gate_utilisation(ranker, Loader(encoders.schema, data, 40).in_order(), names), options

    @pytest.mark.parametrize("name", ["mmoe", "cgc", "ple"])
    def test_a_fresh_gate_is_uniform(self, prepared, name):
        found, _ = self.utilisation(prepared, name)
        assert found
        for gate in found:
            experts = len(gate["experts"])
            assert gate["entropy"] == pytest.approx(math.log(experts))
            assert gate["weights"] == pytest.approx([1 / experts] * experts)

    @pytest.mark.parametrize("name", ["mmoe", "cgc", "ple"])
    def test_weights_sum_to_one_and_entropy_stays_below_uniform(self, prepared, name):
        found, _ = self.utilisation(prepared, name, spread=0.5)
        for gate in found:
            assert sum(gate["weights"]) == pytest.approx(1)
            assert 0 < gate["entropy"] < math.log(len(gate["experts"]))

    def test_names_of_mmoe(self, prepared):
        found, options = self.utilisation(prepared, "mmoe")
        assert [gate["gate"] for gate in found] == ["click", "like", "watch"]
        for gate in found:
            assert gate["experts"] == [f"shared {number + 1}" for number in range(options.experts)]

    def test_names_of_ple(self, prepared):
        # Below the last level there is also a gate for the shared experts; a task never sees another task's experts.
        found, _ = self.utilisation(prepared, "ple")
        levels = sorted({gate["level"] for gate in found})
        for level in levels:
            owners = [gate["gate"] for gate in found if gate["level"] == level]
            assert sorted(owners) == sorted(["click", "like", "watch"] + (["shared"] if level < levels[-1] else []))
        for gate in found:
            seen = {name.rsplit(" ", 1)[0] for name in gate["experts"]}
            assert seen == (
                {"click", "like", "watch", "shared"} if gate["gate"] == "shared" else {gate["gate"], "shared"}
            )

    @pytest.mark.parametrize("name", ["shared_bottom"])
    def test_no_gates_nothing_to_say(self, prepared, name):
        assert self.utilisation(prepared, name)[0] == []

    def test_is_json(self, prepared):
        found, _ = self.utilisation(prepared, "ple", spread=0.3)
        assert json.loads(json.dumps(found, allow_nan=False)) == found
        assert np.isfinite([gate["entropy"] for gate in found]).all()
