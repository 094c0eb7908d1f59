"""The references are `Level.plainly` and `Towers.plainly`, which tests/nn/test_{experts,towers}.py check by loops."""

import os
import subprocess
import sys
import textwrap
from functools import cache

import pytest
import torch

from polyrank.nn import fused
from polyrank.nn.embeddings import Columns, Embeddings
from polyrank.nn.experts import Level
from polyrank.nn.extraction import LevelShape, first_level, later_level
from polyrank.nn.inputs import Inputs
from polyrank.nn.towers import Towers

ROWS, WIDE = 70, 6
COLUMNS = Columns([0, 1, 2], [1, 2, 3], [False] * 3, ["a", "b", "c"], {"a": 3, "b": 17, "c": 9})


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def randomised(module, std=0.3):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, 0, std)
    return module


def results(run, parameters, leaves):
    """Outputs, and gradients of leaves and parameters, the same dropout masks each time."""
    for leaf in (*parameters, *leaves):
        leaf.grad = None
    torch.manual_seed(3)
    out = run()
    torch.manual_seed(4)
    (out * torch.randn(out.shape)).sum().backward()
    return [
        out.detach(),
        *((torch.zeros_like(leaf) if leaf.grad is None else leaf.grad).clone() for leaf in (*leaves, *parameters)),
    ]


def assert_same(found, expected, tolerance=3e-6):
    assert len(found) == len(expected)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        torch.testing.assert_close(one, other, rtol=0, atol=tolerance * max(other.abs().max().item(), 1e-3))


# What a level reads, and its groups and gates: those of each architecture, and stranger ones.
SHAPE = LevelShape(2, 2, 3, ())
LEVELS = {
    "bottom": (1, [(1, 0)], []),
    "mmoe": (1, [(4, 12)], [range(4)] * 3),
    "cgc": (1, None, False),
    "ple": (1, None, True),
    "later": (3, None, True),
    "last": (3, None, False),
    "one gate over two groups": (2, [(2, 3), (1, 0)], [[2, 0, 1]]),
    "an expert that no gate sees": (1, [(3, 2)], [[0, 2]]),
    "groups without gates": (2, [(2, 0), (3, 0)], []),
    "alike, with fewer logits each": (3, [(2, 4), (2, 2), (2, 0)], [[0, 1, 4, 5], [2, 3]]),
    "alike, not all next to each other": (4, [(1, 2), (1, 0), (2, 4), (1, 1)], [[0, 3], [0, 1, 2, 3], [4]]),
    "alike, without gates": (2, [(2, 0), (2, 0)], []),
}
WIDTHS = [(16,), (32, 16), (7, 20, 48)]


def level_of(name, widths, dropout=0.0, in_width=WIDE):
    count, groups, gates = LEVELS[name]
    if groups is None:
        make = first_level if count == 1 else later_level
        return count, randomised(make(in_width, LevelShape(2, 2, 3, widths, dropout), shared_gate=gates))
    return count, randomised(Level(in_width, groups, gates, widths, dropout=dropout))


@pytest.mark.parametrize("name", LEVELS)
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_level_agrees_with_plain_torch(name, widths, dropout):
    count, level = level_of(name, widths, dropout)
    assert fused.suits(level)
    x = torch.randn(count, ROWS, WIDE, requires_grad=True)
    parameters = list(level.parameters())
    assert_same(results(lambda: level(x)[0], parameters, [x]), results(lambda: level.plainly(x)[0], parameters, [x]))
    torch.manual_seed(3)
    weights = level(x)[1]
    torch.manual_seed(3)
    torch.testing.assert_close(weights, level.plainly(x)[1])


TOGETHER = {
    "alike, with fewer logits each": [3],
    "alike, not all next to each other": [2, 1, 1],
    "alike, without gates": [2],
}


def test_under_dropout_each_group_runs_alone():
    _, level = level_of("alike, without gates", (32, 16), dropout=0.3)
    assert [len(groups) for groups in fused._alike(level)] == [1, 1]
    assert [len(groups) for groups in fused._alike(level.eval())] == [2]


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("half", [False, True])
def test_groups_side_by_side_give_what_each_gives_alone(name, half):
    count, level = level_of(name, (32, 16), in_width=48)
    assert [len(groups) for groups in fused._alike(level)] == TOGETHER[name]
    x, parameters = torch.randn(count, ROWS, 48, requires_grad=True), list(level.parameters())

    def run():
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            return level(x)[0].float()

    together = results(run, parameters, [x])
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(fused, "_alike", lambda level: [[group] for group in level.groups])
        alone = results(run, parameters, [x])
    assert torch.equal(together[0], alone[0])
    assert_same(together, alone)  # sums over rows may be split otherwise


@pytest.mark.parametrize("name", ["mmoe", "cgc", "last", "one gate over two groups"])
@pytest.mark.parametrize("widths", WIDTHS[:2])
def test_a_masked_level_agrees_with_plain_torch(name, widths):
    count, level = level_of(name, widths)
    x, leaves = torch.randn(count, ROWS, WIDE, requires_grad=True), list(level.parameters())
    with level.masked((torch.rand(level.starts[-1], level.out_width) < 0.5).float()):
        masked = results(lambda: level(x)[0], leaves, [x])
        assert_same(masked, results(lambda: level.plainly(x)[0], leaves, [x]))
    plain = results(lambda: level(x)[0], leaves, [x])
    assert torch.equal(masked[0], plain[0])
    assert not torch.equal(masked[1], plain[1])


@pytest.mark.parametrize("name", ["bottom", "mmoe", "cgc", "ple"])
@pytest.mark.parametrize("widths", WIDTHS)
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("numbers", [0, 3])
def test_a_level_over_small_tables_agrees_with_plain_torch(name, widths, dropout, numbers):
    embeddings = Embeddings(COLUMNS, 5, std=1.0)
    _, level = level_of(name, widths, dropout, in_width=15 + numbers)
    ids = (torch.rand(ROWS, 3) ** 2 * torch.tensor([3, 17, 9])).int()
    dense, parameters = torch.randn(ROWS, numbers), list(level.parameters())
    inputs = embeddings(ids, dense)
    assert inputs.narrow is not None
    leaves = [inputs.narrow.tables]
    found = results(lambda: level([inputs])[0], parameters, leaves)
    assert_same(found, results(lambda: level.plainly([inputs])[0], parameters, leaves), 5e-6)


@pytest.mark.parametrize("widths", [(), (5,), (32, 16), (9, 7, 3)])
@pytest.mark.parametrize("dropout", [0.0, 0.4])
@pytest.mark.parametrize("expanded", [True, False])
def test_towers_agree_with_plain_torch(widths, dropout, expanded):
    towers = randomised(Towers(3, WIDE, widths, dropout=dropout, biases=[[0.0], [1.0], [-1.0]]))
    leaf = torch.randn(1 if expanded else 3, ROWS, WIDE, requires_grad=True)
    x = leaf.expand(3, -1, -1)
    parameters = list(towers.parameters())
    assert_same(results(lambda: towers(x), parameters, [leaf]), results(lambda: towers.plainly(x), parameters, [leaf]))


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", LEVELS)
def test_few_rows(rows, name):
    count, level = level_of(name, (20, 16))
    x = torch.randn(count, rows, WIDE, requires_grad=True)
    parameters = list(level.parameters())
    assert_same(results(lambda: level(x)[0], parameters, [x]), results(lambda: level.plainly(x)[0], parameters, [x]))


@pytest.mark.parametrize("mode", ["eval", "no_grad", "inference"])
@pytest.mark.parametrize("name", ["bottom", "mmoe", "later"])
def test_evaluation_drops_nothing(mode, name):
    count, level = level_of(name, (20, 16), 0.5)
    towers = randomised(Towers(2, 16, (8,), dropout=0.5, biases=[[0.0], [0.0]]))
    level.eval(), towers.eval()
    x, states = torch.randn(count, ROWS, WIDE), torch.randn(2, ROWS, 16)
    context = {"eval": torch.enable_grad, "no_grad": torch.no_grad, "inference": torch.inference_mode}[mode]
    with context():
        first, again = level(x)[0], level(x)[0]
        assert torch.equal(first, again)
        torch.testing.assert_close(first, level.plainly(x)[0])
        torch.testing.assert_close(towers(states), towers.plainly(states))
        assert first.requires_grad == (mode == "eval")


def test_what_is_not_asked_for_has_no_gradient():
    _, level = level_of("mmoe", (16,))
    x = torch.randn(1, ROWS, WIDE)
    level(x)[0].sum().backward()  # inputs that need none
    expected = level.groups[0].weight.grad.clone()
    level.groups[0].bias.requires_grad_(False)
    level.groups[0].weight.grad = level.groups[0].bias.grad = None
    level(x)[0].sum().backward()
    assert level.groups[0].bias.grad is None
    assert torch.equal(level.groups[0].weight.grad, expected)


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("widths", [(16,), (20, 16)])
@pytest.mark.parametrize("small", [False, True])
def test_a_retained_graph_gives_the_same_again_and_tasks_sum_to_the_whole(dropout, widths, small):
    level = level_of("ple", widths, dropout, in_width=15 if small else WIDE)[1]
    towers = randomised(Towers(3, 16, (9,), dropout=dropout, biases=[[0.0]] * 3))
    inputs = Inputs(torch.randn(ROWS, WIDE, requires_grad=True))
    if small:
        ids = (torch.rand(ROWS, 3) * torch.tensor([3, 17, 9])).int()
        inputs = Embeddings(COLUMNS, 5)(ids, torch.zeros(ROWS, 0))
    leaves = [inputs.narrow.tables if small else inputs.wide, *level.parameters(), *towers.parameters()]
    losses = towers(level([inputs])[0]).square().mean(dim=0)
    whole = torch.autograd.grad(losses.sum(), leaves, retain_graph=True)
    again = torch.autograd.grad(losses.sum(), leaves, retain_graph=True)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    tasks = [torch.autograd.grad(loss, leaves, retain_graph=True) for loss in losses]
    for leaf, *parts in zip(whole, *tasks, strict=True):
        torch.testing.assert_close(sum(parts), leaf, rtol=1e-5, atol=1e-6 * max(1.0, leaf.abs().max().item()))


def far_from_the_edge(module):
    """Units that are on or off whatever bf16 rounds: at a ReLU's edge gradients would differ as a whole."""
    for name, parameter in module.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.constant_(parameter, 1.0)
            parameter.data[..., ::3] = -1.0
        else:
            torch.nn.init.normal_(parameter, 0, 0.2 / parameter.shape[-2] ** 0.5)
    return module


def assert_near(found, exact):
    """bf16 has eight bits: a few rounding errors of 2⁻⁹ each."""
    for one, truth in zip(found, exact, strict=True):
        assert one.dtype == torch.float32 or one is found[0]  # a level hands its bf16 on
        assert (one - truth).norm() < 0.02 * truth.norm()
    assert not torch.equal(found[0].float(), exact[0])


@pytest.mark.parametrize("name", ["bottom", "mmoe", "cgc", "later"])
@pytest.mark.parametrize("widths", [(16,), (20, 16)])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_bf16_is_near_float32(name, widths, dropout):
    count, level = level_of(name, widths, dropout)
    far_from_the_edge(level)
    x = torch.randn(count, ROWS, WIDE, requires_grad=True)
    parameters = list(level.parameters())
    expected = results(lambda: level.plainly(x)[0], parameters, [x])

    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return level(x)[0]

    found = results(run, parameters, [x])
    assert_near(found, expected)


@pytest.mark.parametrize("numbers", [0, 3, 40])  # none, few that the kernel multiplies itself, many
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_small_tables_in_bf16_are_near_float32(numbers, dropout):
    embeddings = Embeddings(COLUMNS, 5)
    embeddings.table.normal_(0, 1)
    _, level = level_of("mmoe", (20, 16), dropout, in_width=15 + numbers)
    far_from_the_edge(level)
    ids, dense = (torch.rand(ROWS, 3) * torch.tensor([3, 17, 9])).int(), torch.randn(ROWS, numbers)
    found = []
    for precise in (True, False):
        x = embeddings(ids, dense)
        leaves = [x.narrow.tables, *level.parameters()]
        torch.manual_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=not precise):
            out = level([x])[0]
        gradients = torch.autograd.grad(out.float().square().sum(), leaves)
        found.append([out, *gradients])
    assert_near(found[1], found[0])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_towers_in_bf16_are_near_float32(dropout):
    towers = far_from_the_edge(Towers(3, WIDE, (32, 16), dropout=dropout, biases=[[0.0]] * 3))
    x = torch.randn(3, ROWS, WIDE, requires_grad=True)
    parameters = list(towers.parameters())
    expected = results(lambda: towers.plainly(x), parameters, [x])

    def run():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return towers(x)

    assert_near(results(run, parameters, [x]), expected)


@pytest.mark.parametrize("part", ["level", "towers"])
def test_a_mode_switched_before_backward_changes_no_gradient(part):
    module = (
        level_of("bottom", (16,), 0.5)[1] if part == "level" else Towers(1, WIDE, (8,), dropout=0.5, biases=[[0.0]])
    )
    x = torch.randn(1, ROWS, WIDE)
    gradients = []
    for switched in (False, True):
        module.train().zero_grad()
        torch.manual_seed(1)
        out = module(x)[0] if part == "level" else module(x)
        module.train(not switched)
        out.sum().backward()
        gradients.append(next(module.parameters()).grad.clone())
    assert torch.equal(*gradients)


def test_a_width_that_is_no_multiple_of_sixteen_goes_plainly():
    assert not fused.suits(Level(WIDE, [(2, 2)], [[0, 1]], (15,)))
    assert fused.suits(Level(WIDE, [(2, 0)], [], (15,)))


def test_not_a_number_stays_in_its_row():
    _, level = level_of("mmoe", (20, 16))
    x = torch.randn(1, ROWS, WIDE)
    x[0, 5, 2] = torch.nan
    out = level(x)[0]
    assert out[:, 5].isnan().all()
    assert int(out.isnan().any(dim=2).sum()) == 3


PROGRAM = """
    import sys
    if sys.argv[1] == "without":
        sys.modules["numba"] = None
    import torch
    torch.set_num_threads(1)
    from polyrank.data.encoders import Field, Layout, TaskStatistics
    from polyrank.data.loader import Batch
    from polyrank.data.schema import Task
    from polyrank.models.ple import PLEConfig
    from polyrank.models.ranker import Ranker, RankerConfig
    from polyrank.nn import experts
    from polyrank.training.optimizers import EMBEDDING_OPTIMIZERS, dense_optimizer

    assert (experts.fused is None) == (sys.argv[1] == "without")
    torch.manual_seed(0)
    fields = (
        Field("user", "id", 0, 1, "user"), Field("history", "sequence", 1, 4, "video"),
        Field("video", "id", 4, 5, "video"), Field("sex", "category", 5, 6, "sex"),
    )
    layout = Layout(fields, {"user": 3000, "video": 40, "sex": 3})
    tasks = (Task("click", "binary"), Task("like", "binary"))
    statistics = (TaskStatistics(10, 0.3, 0.4), TaskStatistics(10, 0.1, 0.3))
    for kind in EMBEDDING_OPTIMIZERS:
        config = RankerConfig(architecture="ple", embedding_width=4, towers=(8,))
        ranker = Ranker(tasks, statistics, layout, config, PLEConfig(widths=(16,)))
        dense, sparse = dense_optimizer(ranker, 0.01, 0.0), EMBEDDING_OPTIMIZERS[kind](ranker.embeddings)
        for step in range(8):
            ids = (torch.rand(32, 6) * torch.tensor([3000, 40, 40, 40, 40, 3])).int()
            where = torch.ones(32, 2, dtype=torch.bool)
            batch = Batch(ids, torch.zeros(32, 0), torch.zeros(32, 2), where)
            target = (ids[:, 4:6] % 2).float()
            loss = torch.nn.functional.binary_cross_entropy_with_logits(ranker(batch), target)
            ranker.zero_grad()
            loss.backward()
            dense.step()
            sparse.step(0.05)
            sys.stdout.write(f"{loss.item():.9g} ")
"""


@cache
def program(which):
    run = [sys.executable, "-c", textwrap.dedent(PROGRAM), which]
    done = subprocess.run(run, capture_output=True, text=True, env=os.environ, check=False)
    assert done.returncode == 0, done.stderr
    return [float(word) for word in done.stdout.split()]


@pytest.mark.slow
def test_without_numba_a_training_runs_and_falls():
    losses = program("without")
    assert len(losses) == 16
    assert losses[7] < losses[0]
    assert losses[15] < losses[8]


@pytest.mark.slow
def test_without_numba_a_training_has_the_same_losses():
    assert program("without") == pytest.approx(program("with"), abs=1e-5)
