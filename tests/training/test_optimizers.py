"""The references are torch's Adam and AdamW, loops over rows, and schedules worked out by hand."""

import math

import pytest
import torch
from torch import nn

from polyrank.data.encoders import Field, Layout, TaskStatistics
from polyrank.data.schema import Task
from polyrank.models.ple import PLEConfig
from polyrank.models.ranker import Ranker, RankerConfig
from polyrank.nn.embeddings import Columns, Embeddings
from polyrank.training.optimizers import (
    EMBEDDING_OPTIMIZERS,
    LazyAdam,
    RowwiseAdagrad,
    clip_norm,
    dense_optimizer,
    learning_rate_factor,
)

ROWS, WIDTH = 12, 4
every_optimizer = pytest.mark.parametrize("optimizer", EMBEDDING_OPTIMIZERS.values())


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def embeddings_of(rows=ROWS, *, shared=False):
    """One single feature; with `shared` also a bag of two that reads the same table."""
    if shared:
        return Embeddings(Columns([0, 1], [1, 3], [False, True], ["video", "video"], {"video": rows}), WIDTH)
    return Embeddings(Columns([0], [1], [False], ["video"], {"video": rows}), WIDTH)


def looked_up(embeddings, ids):
    """What a batch of ids reads, without numbers."""
    return embeddings(ids.int(), torch.zeros(len(ids), 0)).written()


def backward(embeddings, ids, toward):
    """A loss whose gradient depends on the rows, so that errors would build up."""
    out = looked_up(embeddings, ids)
    (torch.sin(out) * toward[:, : out.shape[1]]).sum().backward()


def touched_gradient(embeddings):
    """The dense sum of the last backward's row gradients; the optimiser still finds them."""
    gradient, found = torch.zeros_like(embeddings.table), embeddings.touched()
    for touched in found:
        for start, count in zip(touched.starts.tolist(), touched.counts.tolist(), strict=True):
            gradient.index_add_(0, touched.rows[start : start + count], touched.sums[start : start + count])
    embeddings.touched = lambda: [embeddings.__dict__.pop("touched"), found][1]  # once; then the method again
    return gradient


class TestLazyAdam:
    @pytest.mark.parametrize("shared", [False, True])
    def test_with_every_row_touched_it_is_adam(self, shared):
        embeddings = embeddings_of(shared=shared)
        reference = nn.Parameter(embeddings.table.clone())
        adam, lazy = torch.optim.Adam([reference], lr=0.01), LazyAdam(embeddings)
        for step in range(50):
            order = torch.cat([torch.randperm(ROWS), torch.randint(0, ROWS, (5,))])[:, None]  # with repeats
            ids = torch.cat([order, torch.randint(0, ROWS, (ROWS + 5, 2))], dim=1) if shared else order
            backward(embeddings, ids, torch.randn(ROWS + 5, 2 * WIDTH))
            reference.grad = touched_gradient(embeddings)
            rate = 0.01 * (1 - step / 100)
            adam.param_groups[0]["lr"] = rate
            adam.step()
            lazy.step(rate)
            torch.testing.assert_close(embeddings.table.data, reference.data, rtol=0, atol=1e-6)

    def test_by_hand(self):
        embeddings = embeddings_of(3)
        with torch.no_grad():
            embeddings.table.fill_(1.0)
        lazy = LazyAdam(embeddings, betas=(0.5, 0.75), epsilon=0.0)
        (looked_up(embeddings, torch.tensor([[1], [1]])) * 2.0).sum().backward()  # g = 2 + 2
        lazy.step(0.1)
        # m = ½·4, v = ¼·16, bias corrections ½ and ¼: the first step is lr whatever the gradient.
        assert embeddings.table[1].tolist() == pytest.approx([0.9] * WIDTH)
        (looked_up(embeddings, torch.tensor([[1]])) * 2.0).sum().backward()
        lazy.step(0.1)
        # m = ½·2 + ½·2 = 2, v = ¾·4 + ¼·4 = 4, t = 2: 0.1 · √(1 − 9/16) / (1 − ¼) · 2/√4
        assert embeddings.table[1].tolist() == pytest.approx([0.9 - 0.1 * math.sqrt(7 / 16) / 0.75] * WIDTH)
        assert embeddings.table[0].tolist() == embeddings.table[2].tolist() == [1.0] * WIDTH

    def test_epsilon_stands_beside_the_corrected_root(self):
        # The first step is lr·g/(|g| + ε): half a learning rate where g = ε, not a thirtieth of it.
        embeddings = embeddings_of(3)
        before = embeddings.table.clone()
        lazy = LazyAdam(embeddings, epsilon=1e-6)
        (looked_up(embeddings, torch.tensor([[1]])) * 1e-6).sum().backward()
        lazy.step(0.1)
        torch.testing.assert_close(embeddings.table[1], before[1] - 0.05, rtol=0, atol=1e-5)

    def test_a_resting_row_keeps_its_moments(self):
        embeddings = embeddings_of()
        lazy = LazyAdam(embeddings)
        backward(embeddings, torch.tensor([[3]]), torch.ones(1, WIDTH))
        lazy.step(0.01)
        moment = lazy.moment[3].clone()
        for _ in range(5):
            backward(embeddings, torch.tensor([[4]]), torch.ones(1, WIDTH))
            lazy.step(0.01)
        assert torch.equal(lazy.moment[3], moment)
        assert lazy.steps == 6


class TestRowwiseAdagrad:
    @pytest.mark.parametrize("shared", [False, True])
    def test_agrees_with_a_loop_over_rows(self, shared):
        embeddings = embeddings_of(shared=shared)
        adagrad = RowwiseAdagrad(embeddings, epsilon=1e-6)
        table, accumulated = embeddings.table.double(), [0.0] * ROWS
        for _ in range(20):
            backward(embeddings, torch.randint(0, ROWS, (6, 3 if shared else 1)), torch.randn(6, 2 * WIDTH))
            gradient = touched_gradient(embeddings).double()
            for row in range(ROWS):
                g = gradient[row]
                accumulated[row] += sum(value**2 for value in g.tolist()) / WIDTH
                table[row] -= 0.05 * g / (math.sqrt(accumulated[row]) + 1e-6)
            adagrad.step(0.05)
            torch.testing.assert_close(embeddings.table.double(), table, rtol=0, atol=1e-5)
        assert adagrad.accumulator[:, 0].tolist() == pytest.approx(accumulated, rel=1e-4)

    def test_by_hand(self):
        embeddings = Embeddings(Columns([0], [1], [False], ["video"], {"video": 2}), 2)
        with torch.no_grad():
            embeddings.table.fill_(1.0)
        adagrad = RowwiseAdagrad(embeddings, epsilon=0.0)
        for _ in range(2):
            (looked_up(embeddings, torch.tensor([[1]])) * torch.tensor([1.0, 7.0])).sum().backward()
            adagrad.step(0.5)
        # mean(g²) = 25 a step: steps of ½·g/5 and ½·g/√50.
        expected = [1 - 0.5 * g / 5 - 0.5 * g / math.sqrt(50) for g in (1.0, 7.0)]
        assert embeddings.table[1].tolist() == pytest.approx(expected, rel=1e-6)

    def test_needs_one_number_a_row(self):
        assert RowwiseAdagrad(embeddings_of()).accumulator.shape == (ROWS, 1)


class TestBoth:
    @every_optimizer
    @pytest.mark.parametrize("rows", [ROWS, 5000])  # a dense sum over the table, or sorted places
    def test_untouched_rows_stay_bit_for_bit(self, optimizer, rows):
        embeddings = embeddings_of(rows, shared=True)
        before = embeddings.table.clone()
        optimize = optimizer(embeddings)
        for _ in range(3):
            backward(embeddings, torch.tensor([[0, 3, 0], [rows - 1, 3, 5]]), torch.randn(2, 2 * WIDTH))
            optimize.step(0.1)
        moved = (embeddings.table != before).all(dim=1)
        assert moved.nonzero().flatten().tolist() == [0, 3, 5, rows - 1]
        assert torch.equal(embeddings.table[~moved], before[~moved])

    @every_optimizer
    def test_both_sums_train_alike(self, optimizer):
        """A table that is small beside the batch is summed another way than a large one."""
        tables = []
        for rows in (20, 5000):
            torch.manual_seed(1)
            embeddings = embeddings_of(rows)
            with torch.no_grad():
                embeddings.table[:20] = torch.linspace(-1, 1, 80).view(20, 4)
            optimize = optimizer(embeddings)
            generator = torch.Generator().manual_seed(2)
            for _ in range(5):
                ids = torch.randint(0, 20, (30, 1), generator=generator)
                backward(embeddings, ids, torch.randn(30, WIDTH, generator=generator))
                optimize.step(0.01)
            tables.append(embeddings.table[:20].clone())
        assert torch.equal(*tables)

    @every_optimizer
    def test_a_step_takes_what_was_taken_once(self, optimizer):
        embeddings = embeddings_of()
        optimize = optimizer(embeddings)
        backward(embeddings, torch.tensor([[3]]), torch.ones(1, WIDTH))
        optimize.step(0.1)
        after = embeddings.table.clone()
        optimize.step(0.1)
        assert torch.equal(embeddings.table, after)

    @every_optimizer
    def test_a_forward_pass_without_backward_moves_nothing(self, optimizer):
        embeddings = embeddings_of(shared=True)
        before = embeddings.table.clone()
        optimize = optimizer(embeddings)
        looked_up(embeddings, torch.tensor([[3, 1, 2]]))
        optimize.step(0.1)
        with torch.no_grad():
            looked_up(embeddings, torch.tensor([[3, 1, 2]]))
        optimize.step(0.1)
        assert torch.equal(embeddings.table, before)

    @every_optimizer
    def test_a_restored_optimizer_goes_on_as_the_first(self, optimizer):
        tables = []
        for restored in (False, True):
            torch.manual_seed(4)
            embeddings = embeddings_of()
            optimize = optimizer(embeddings)
            for step in range(6):
                backward(embeddings, torch.randint(0, ROWS, (5, 1)), torch.randn(5, WIDTH))
                optimize.step(0.1)
                if restored and step == 2:
                    state = {
                        key: torch.clone(v) if torch.is_tensor(v) else v for key, v in optimize.state_dict().items()
                    }
                    optimize = optimizer(embeddings)
                    optimize.load_state_dict(state)
            tables.append(embeddings.table.clone())
        assert torch.equal(*tables)


def a_ranker():
    layout = Layout((Field("user", "id", 0, 1, "user"),), {"user": 5})
    tasks = (Task("click", "binary"), Task("like", "binary"))
    statistics = (TaskStatistics(10, 0.3, 0.4), TaskStatistics(10, 0.1, 0.3))
    config = RankerConfig(architecture="ple", embedding_width=4, towers=(5,))
    return Ranker(tasks, statistics, layout, config, PLEConfig(widths=(6, 3)))


class TestDense:
    def test_biases_are_not_decayed_and_the_table_is_not_there(self):
        ranker = a_ranker()
        decayed, plain = dense_optimizer(ranker, 0.01, 0.1).param_groups
        names = {id(parameter): name for name, parameter in ranker.named_parameters()}
        assert all(names[id(p)].endswith(".weight") for p in decayed["params"])
        assert all(names[id(p)].endswith(".bias") for p in plain["params"])
        assert (decayed["weight_decay"], plain["weight_decay"]) == (0.1, 0.0)
        assert len(decayed["params"]) + len(plain["params"]) == len(names) - 1
        assert all(p is not ranker.embeddings.table for p in (*decayed["params"], *plain["params"]))

    def test_without_gradient_weights_shrink_and_the_rest_stays(self):
        ranker = a_ranker()
        before = {name: parameter.clone() for name, parameter in ranker.named_parameters()}
        optimizer = dense_optimizer(ranker, 0.01, 0.5)
        for _, parameter in ranker.dense_parameters():
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        for name, parameter in ranker.named_parameters():
            factor = 1 - 0.01 * 0.5 if name.endswith("weight") else 1.0
            torch.testing.assert_close(parameter.data, before[name].data * factor)

    def test_the_first_step_is_the_learning_rate(self):
        ranker = a_ranker()
        before = {name: parameter.clone() for name, parameter in ranker.dense_parameters()}
        optimizer = dense_optimizer(ranker, 0.01, 0.0)
        for _, parameter in ranker.dense_parameters():
            parameter.grad = torch.full_like(parameter, 3.0)
        optimizer.step()
        for name, parameter in ranker.dense_parameters():
            torch.testing.assert_close(parameter.data, before[name].data - 0.01)

    def test_it_is_torchs_adamw_to_the_last_bit_and_its_state_is_too(self):
        mine, theirs = a_ranker(), a_ranker()
        theirs.load_state_dict(mine.state_dict())
        ours = dense_optimizer(mine, 0.01, 0.1)
        by_name = dict(theirs.dense_parameters())
        names = {id(parameter): name for name, parameter in mine.dense_parameters()}
        groups = [group | {"params": [by_name[names[id(p)]] for p in group["params"]]} for group in ours.param_groups]
        reference = torch.optim.AdamW(groups, lr=0.01, fused=True)
        for step in range(6):
            if step == 4:  # a training that goes on
                state, groups = ours.state_dict(), ours.param_groups
                ours = dense_optimizer(mine, 0.01, 0.1)
                ours.load_state_dict(state)
                assert ours.param_groups is not groups
            for number, ((_, one), (_, other)) in enumerate(
                zip(mine.dense_parameters(), theirs.dense_parameters(), strict=True)
            ):
                seen = number % 3 or step in (1, 3)  # a third is without a gradient at first, and now and then
                one.grad = torch.randn_like(one) if seen else None
                other.grad = one.grad.clone() if seen else None
            for optimizer in (ours, reference):
                for group in optimizer.param_groups:
                    group["lr"] = 0.01 / (step + 1)
                optimizer.step()
            for (_, one), (_, other) in zip(mine.dense_parameters(), theirs.dense_parameters(), strict=True):
                assert torch.equal(one, other)
        found, expected = ours.state_dict(), reference.state_dict()
        assert found["param_groups"] == expected["param_groups"]
        assert found["state"].keys() == expected["state"].keys()
        for place, own in expected["state"].items():
            assert {name: value.tolist() for name, value in own.items()} == {
                name: value.tolist() for name, value in found["state"][place].items()
            }

    def test_a_group_without_any_gradient_stays(self):
        ranker = a_ranker()
        optimizer = dense_optimizer(ranker, 0.01, 0.1)
        for stage in ("first", "second"):
            before = {name: parameter.clone() for name, parameter in ranker.dense_parameters()}
            for name, parameter in ranker.dense_parameters():
                parameter.grad = torch.ones_like(parameter) if name.endswith("weight") else None
            optimizer.step()
            for name, parameter in ranker.dense_parameters():
                assert torch.equal(parameter, before[name]) != name.endswith("weight"), stage


class TestClipNorm:
    @staticmethod
    def parameters(scale):
        torch.manual_seed(1)
        found = [nn.Parameter(torch.zeros(shape)) for shape in ((3, 4), (5,), (2, 2, 2))]
        for parameter in found:
            parameter.grad = torch.randn(parameter.shape) * scale
        found[0].grad = found[0].grad.t().contiguous().t()  # gradients need not be contiguous
        return [*found, nn.Parameter(torch.zeros(2))]  # nor be there

    def test_by_hand(self):
        parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
        parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([-4.0])
        clip_norm(parameters, 1.0)
        assert [p.grad.item() for p in parameters] == pytest.approx([0.6, -0.8], rel=1e-6)

    @pytest.mark.parametrize("scale", [1e-3, 1.0, 1e4, math.inf, math.nan])
    def test_agrees_with_torch(self, scale):
        mine, theirs = self.parameters(scale), self.parameters(scale)
        clip_norm(mine, 2.0)
        nn.utils.clip_grad_norm_(theirs, 2.0)
        for one, other in zip(mine[:3], theirs[:3], strict=True):
            torch.testing.assert_close(one.grad, other.grad, equal_nan=True)
        assert mine[3].grad is None

    def test_what_is_short_enough_stays_bit_for_bit(self):
        parameters = self.parameters(0.1)
        before = [p.grad.clone() for p in parameters[:3]]
        clip_norm(parameters, 2.0)
        assert all(torch.equal(p.grad, g) for p, g in zip(parameters[:3], before, strict=True))


class TestLearningRate:
    @pytest.mark.parametrize(
        ("step", "cosine"),
        [
            (0, 0.1),  # a tenth of the warm-up's ten steps
            (4, 0.5),
            (9, 1.0),
            (10, 1.0),  # (1 + cos 0)/2
            (40, 0.75),  # a third of ninety steps: (1 + ½)/2
            (55, 0.5),
            (70, 0.25),
            (100, 0.0),
            (120, 0.0),
        ],
    )
    def test_by_hand(self, step, cosine):
        assert learning_rate_factor(step, 100, 0.1, "cosine") == pytest.approx(cosine, abs=1e-12)
        assert learning_rate_factor(step, 100, 0.1, "constant") == min((step + 1) / 10, 1.0)

    @pytest.mark.parametrize(("step", "factor"), [(0, 1.0), (25, (1 + math.sqrt(0.5)) / 2), (50, 0.5), (100, 0.0)])
    def test_without_warmup(self, step, factor):
        assert learning_rate_factor(step, 100, 0.0, "cosine") == pytest.approx(factor, abs=1e-12)
        assert learning_rate_factor(step, 100, 0.0, "constant") == 1.0

    def test_one_cycle_is_torchs(self):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimizer = torch.optim.SGD([weight], lr=1.0)
        theirs = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total_steps=50, pct_start=0.3)
        for step in range(50):
            rate = optimizer.param_groups[0]["lr"]
            assert learning_rate_factor(step, 50, 0.3, "one_cycle") == pytest.approx(rate, rel=1e-6), step
            optimizer.step()
            if step < 49:
                theirs.step()

    @pytest.mark.parametrize("total", [1, 2, 10])
    @pytest.mark.parametrize("warmup", [0.0, 0.001, 0.5, 0.99])
    @pytest.mark.parametrize("schedule", ["cosine", "constant", "one_cycle"])
    def test_short_trainings_learn(self, total, warmup, schedule):
        factors = [learning_rate_factor(step, total, warmup, schedule) for step in range(total)]
        assert all(0 < factor <= 1 for factor in factors)
        assert max(factors) == 1.0
