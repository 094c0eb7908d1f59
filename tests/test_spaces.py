import itertools
import math

import numpy as np
import pytest
import torch
from torch.nn.functional import binary_cross_entropy_with_logits, softplus

from polyrank.data.paths import ROOT
from polyrank.spaces import (
    Seen,
    SpaceConfig,
    calibrator,
    conditional,
    counting_rows,
    doubly_robust,
    imputation_risk,
    inverse_propensity,
    log_joint,
    space_losses,
)

DOUBLE = torch.float64


def logit(*probabilities):
    p = torch.tensor(probabilities, dtype=DOUBLE)
    return torch.log(p / (1 - p))


def tensor(*values):
    return torch.tensor(values, dtype=DOUBLE)


def entropy(z, y):
    return binary_cross_entropy_with_logits(z, y, reduction="none")


class TestChain:
    """exposure → 1 → 0 → 3, and 1 → 2: parents need not come first."""

    PARENTS = (1, ROOT, 1, 0)
    PATHS = ([1, 0], [1], [1, 2], [1, 0, 3])

    def test_the_joint_is_the_product_along_the_path(self):
        z = torch.randn(50, 4, dtype=DOUBLE, generator=torch.Generator().manual_seed(0)) * 3
        yes, no = log_joint(z, self.PARENTS)
        for task, path in enumerate(self.PATHS):
            product = torch.sigmoid(z[:, path]).prod(dim=1)
            torch.testing.assert_close(yes[:, task].exp(), product)
            torch.testing.assert_close(no[:, task].exp(), 1 - product)

    @pytest.mark.parametrize("size", [100.0, -100.0, 1e4])
    def test_nothing_overflows_and_no_gradient_is_lost(self, size):
        """A product that rounds to 1 (or to 0) is still told from 1 (from 0) by its logarithm."""
        z = torch.full((1, 4), size, requires_grad=True)  # float32
        yes, no = log_joint(z, self.PARENTS)
        assert torch.isfinite(yes).all()
        assert torch.isfinite(no).all()
        (no if size > 0 else yes)[0, 3].backward()
        gradient = z.grad[0, list(self.PATHS[3])]
        assert torch.isfinite(gradient).all()
        assert gradient.abs().sum() > 0.99

    def test_a_chain_of_sure_steps_stops_with_the_odds_of_the_weakest(self):
        # 1 − c ≈ e^−40 + 2·e^−60: where the weak step stands does not matter
        for order in itertools.permutations([40.0, 60.0, 60.0]):
            _, no = log_joint(torch.tensor([order]), (ROOT, 0, 1))
            assert no[0, 2].item() == pytest.approx(-40.0, abs=1e-4)

    def test_joint_never_exceeds_the_parent(self):
        z = torch.randn(200, 4, generator=torch.Generator().manual_seed(1)) * 5
        yes, _ = log_joint(z, self.PARENTS)
        for task, parent in enumerate(self.PARENTS):
            if parent != ROOT:
                assert (yes[:, task] <= yes[:, parent]).all()


def test_conditionals_of_joint_logits_are_quotients_and_at_most_one():
    z = torch.stack([logit(0.5, 0.5), logit(0.2, 0.6)], dim=1)
    torch.testing.assert_close(conditional(z, (ROOT, 0)), tensor([0.5, 0.4], [0.5, 1.0]))


class TestGolden:
    """Two rows, o = (1, 0), r = (1, ·), q = (.5, .4), p̂ = (.25, .1), ê = (.6, .3)."""

    ERRORS = tensor(math.log(2), 123.0)  # the second is not observed: any number
    IMPUTED = tensor(0.6, 0.3)

    def seen(self, floor=0.0, self_normalised=False):
        propensities = tensor(0.25, 0.1).clamp(min=floor)
        return Seen(torch.tensor([True, False]), propensities, tensor(1, 1), self_normalised)

    def test_inverse_propensity(self):
        assert inverse_propensity(self.ERRORS, self.seen()).item() == pytest.approx(1.386294, abs=1e-6)
        assert inverse_propensity(self.ERRORS, self.seen(floor=0.5)).item() == pytest.approx(0.693147, abs=1e-6)
        normalised = inverse_propensity(self.ERRORS, self.seen(self_normalised=True))
        assert normalised.item() == pytest.approx(0.693147, abs=1e-6)

    def test_doubly_robust(self):
        assert doubly_robust(self.ERRORS, self.IMPUTED, self.seen()).item() == pytest.approx(0.636294, abs=1e-6)
        assert imputation_risk(self.ERRORS, self.IMPUTED, self.seen()).item() == pytest.approx(0.017353, abs=1e-6)

    def test_self_normalised_the_correction_alone_is(self):
        # mean(.6, .3) + (.693147 − .6)
        found = doubly_robust(self.ERRORS, self.IMPUTED, self.seen(self_normalised=True))
        assert found.item() == pytest.approx(0.45 + math.log(2) - 0.6)

    def test_rows_outside_the_space_do_not_count(self):
        one = Seen(torch.tensor([True, False]), tensor(0.25, 0.1), tensor(1, 0))
        assert inverse_propensity(self.ERRORS, one).item() == pytest.approx(4 * math.log(2))
        none = Seen(torch.tensor([True, False]), tensor(0.25, 0.1), tensor(0, 0), True)
        assert doubly_robust(self.ERRORS, self.IMPUTED, none).item() == 0

    def test_the_imputation_risk_leaves_the_task_alone(self):
        errors, imputed = tensor(1.0, 2.0).requires_grad_(), self.IMPUTED.clone().requires_grad_()
        imputation_risk(errors, imputed, self.seen()).backward()
        assert errors.grad is None
        assert imputed.grad.tolist() == pytest.approx([-2 * 0.4 / 0.25 / 2, 0.0])

    def test_calibrator(self):
        # AITM: ŷ = (.3, .5) with α = .6 gives .12
        assert 0.6 * calibrator(logit(0.5), logit(0.3), tensor(1)).item() == pytest.approx(0.12)
        assert calibrator(logit(0.3, 0.5), logit(0.5, 0.4), tensor(1, 1)).item() == pytest.approx(0.05)


class TestUnbiased:
    """The estimators' exact expectation over every pattern of what is observed, on five rows of known errors."""

    ERRORS = tensor(0.3, 2.0, 0.1, 1.2, 0.7)
    PROPENSITIES = tensor(0.9, 0.2, 0.5, 0.3, 0.6)
    WRONG_PROPENSITIES = tensor(0.4, 0.5, 0.5, 0.8, 0.2)
    WRONG_IMPUTED = tensor(1.0, 0.5, 0.4, 0.1, 3.0)
    TRUTH = ERRORS.mean().item()

    def expected(self, estimate):
        total = 0.0
        for pattern in itertools.product([False, True], repeat=5):
            observed = torch.tensor(pattern)
            chance = torch.where(observed, self.PROPENSITIES, 1 - self.PROPENSITIES).prod().item()
            total += chance * estimate(observed).item()
        return total

    def seen(self, observed, propensities):
        return Seen(observed, propensities, torch.ones(5, dtype=DOUBLE))

    def test_the_mean_over_observed_rows_is_biased(self):
        def naive(observed):
            return self.ERRORS[observed].mean() if observed.any() else tensor(self.TRUTH)[0]

        assert abs(self.expected(naive) - self.TRUTH) > 0.1

    @pytest.mark.parametrize("right", [True, False])
    def test_inverse_propensity_needs_right_propensities(self, right):
        propensities = self.PROPENSITIES if right else self.WRONG_PROPENSITIES
        found = self.expected(lambda o: inverse_propensity(self.ERRORS, self.seen(o, propensities)))
        assert (abs(found - self.TRUTH) < 1e-12) == right

    @pytest.mark.parametrize("propensity_right", [True, False])
    @pytest.mark.parametrize("imputation_right", [True, False])
    def test_doubly_robust_needs_either(self, propensity_right, imputation_right):
        propensities = self.PROPENSITIES if propensity_right else self.WRONG_PROPENSITIES
        imputed = self.ERRORS if imputation_right else self.WRONG_IMPUTED
        found = self.expected(lambda o: doubly_robust(self.ERRORS, imputed, self.seen(o, propensities)))
        assert (abs(found - self.TRUTH) < 1e-12) == (propensity_right or imputation_right)

    @pytest.mark.parametrize("propensity_right", [True, False])
    @pytest.mark.parametrize("imputation_right", [True, False])
    def test_so_is_the_gradient_of_a_prediction(self, propensity_right, imputation_right):
        """With pseudo labels in place of labels: what teaches the task is right in expectation, either way."""
        rates = tensor(0.1, 0.9, 0.3, 0.7, 0.5)
        propensities = self.PROPENSITIES if propensity_right else self.WRONG_PROPENSITIES
        pseudo = rates if imputation_right else tensor(0.5, 0.2, 0.9, 0.1, 0.8)
        slope = torch.zeros(5, dtype=DOUBLE)
        for pattern in itertools.product([False, True], repeat=5):
            observed = torch.tensor(pattern)
            chance = torch.where(observed, self.PROPENSITIES, 1 - self.PROPENSITIES).prod()
            z = logit(0.4, 0.5, 0.6, 0.2, 0.3).requires_grad_()
            # ℓ is linear in the label: the expectation over labels is the loss at their rates
            risk = doubly_robust(entropy(z, rates), entropy(z, pseudo), self.seen(observed, propensities))
            slope += chance * torch.autograd.grad(risk, z)[0]
        wanted = (tensor(0.4, 0.5, 0.6, 0.2, 0.3) - rates) / 5
        assert bool((slope - wanted).abs().max() < 1e-12) == (propensity_right or imputation_right)


class TestLosses:
    """click → buy, click → watch (a number)."""

    PARENTS, BINARY = (ROOT, 0, 0), (True, True, False)
    NAN = math.nan
    #             click and buy; click; no click; click, buy unknown; nothing known; no click, buy unknown
    CLICK = tensor(1, 1, 0, 1, NAN, 0)
    BUY = tensor(1, 0, 0, NAN, NAN, NAN)
    JOINT = tensor(1, 0, 0, -1, -1, 0)

    @pytest.fixture
    def batch(self):
        where = torch.stack([~self.CLICK.isnan(), (self.CLICK == 1) & ~self.BUY.isnan(), self.CLICK == 1], dim=1)
        labels = torch.where(where, torch.stack([self.CLICK, self.BUY, tensor(5, 6, 0, 7, 0, 0)], dim=1), 0.0)
        joint = torch.stack([self.CLICK.nan_to_num(nan=-1), self.JOINT, torch.full((6,), -1.0)], dim=1)
        return {"labels": labels, "where": where, "joint": joint}

    def run(self, batch, training, weights=None, **knobs):
        generator = torch.Generator().manual_seed(2)
        logits = torch.randn(6, 3, dtype=DOUBLE, generator=generator).requires_grad_()
        guesses = torch.randn(6, 2, dtype=DOUBLE, generator=generator).requires_grad_()
        errors = torch.stack(
            [entropy(logits[:, t], batch["labels"][:, t]) for t in (0, 1)]
            + [(logits[:, 2] - batch["labels"][:, 2]).square()],
            dim=1,
        )
        config = SpaceConfig(training, **knobs)
        losses = space_losses(
            errors, logits, guesses, config=config, parents=self.PARENTS, binary=self.BINARY, weights=weights, **batch
        )
        counting = counting_rows(config, self.PARENTS, self.BINARY, batch["where"], batch["joint"], weights)
        return losses, counting.sum(dim=0), logits, guesses, errors

    def test_own(self, batch):
        losses, masses, _, _, errors = self.run(batch, "own")
        assert masses.tolist() == [5, 2, 3]
        wanted = [errors[[0, 1, 2, 3, 5], 0].mean(), errors[[0, 1], 1].mean(), errors[[0, 1, 3], 2].mean()]
        torch.testing.assert_close(losses, torch.stack(wanted))

    def test_entire(self, batch):
        losses, masses, logits, _, errors = self.run(batch, "entire")
        assert masses.tolist() == [5, 4, 3]
        c = torch.sigmoid(logits[:, 0]) * torch.sigmoid(logits[:, 1])
        joint = -(torch.log(c[0]) + torch.log(1 - c[[1, 2, 5]]).sum()) / 4
        wanted = [errors[[0, 1, 2, 3, 5], 0].mean(), joint, errors[[0, 1, 3], 2].mean()]
        torch.testing.assert_close(losses, torch.stack(wanted))

    def test_the_esmm_papers_row(self):
        """p = .2, q = .5, clicked and not converted: 1.609438 + .105361."""
        z = torch.stack([logit(0.2), logit(0.5)], dim=1)
        label = tensor([1, 0])
        losses = space_losses(
            entropy(z, label), z, z[:, :0], config=SpaceConfig("entire"), parents=(ROOT, 0), binary=(True, True),
            labels=label, where=label < 2, joint=tensor([1, 0]),
        )  # fmt: skip
        assert losses.tolist() == pytest.approx([1.609438, 0.105361], abs=1e-6)

    def test_direct(self, batch):
        losses, masses, logits, _, _ = self.run(batch, "direct", calibrator_weight=0.3)
        rows = [0, 1, 2, 5]
        excess = torch.relu(torch.sigmoid(logits[rows, 1]) - torch.sigmoid(logits[rows, 0])).mean()
        assert excess > 0
        wanted = entropy(logits[rows, 1], tensor(1, 0, 0, 0)).mean() + 0.3 * excess
        torch.testing.assert_close(losses[1], wanted)
        assert masses.tolist() == [5, 4, 3]

    def test_ips(self, batch):
        losses, masses, logits, _, errors = self.run(
            batch, "ips", correction_weight=2.0, joint_weight=0.25, propensity_floor=0.5
        )
        p = torch.sigmoid(logits[:, 0]).clamp(min=0.5)
        assert (p == 0.5).any()
        exposed = 5  # all but the row without a click label; the one whose purchase is unknown is not observed
        joint = self.run(batch, "entire")[0][1]
        wanted = 2 * (errors[[0, 1], 1] / p[[0, 1]]).sum() / exposed + 0.25 * joint
        torch.testing.assert_close(losses[1], wanted)
        torch.testing.assert_close(losses[2], 2 * (errors[[0, 1, 3], 2] / p[[0, 1, 3]]).sum() / exposed)
        assert masses.tolist() == [5, 5, 5]

    @pytest.mark.parametrize("imputation", ["label", "error"])
    def test_dr(self, batch, imputation):
        losses, _, logits, guesses, errors = self.run(
            batch, "dr", correction_weight=1.0, joint_weight=0.0, propensity_floor=0.01, imputation=imputation
        )
        p, rows = torch.sigmoid(logits[:, 0]), [0, 1, 2, 3, 5]
        guess = guesses[:, 0]
        if imputation == "label":
            imputed = entropy(logits[:, 1], torch.sigmoid(guess))
            misfit = entropy(guess, batch["labels"][:, 1])
        else:
            imputed = softplus(guess)
            misfit = (errors[:, 1] - imputed).square()
        corrections = (errors[:, 1] - imputed + misfit)[[0, 1]] / p[[0, 1]]
        torch.testing.assert_close(losses[1], (imputed[rows].sum() + corrections.sum()) / 5)
        numbers = softplus(guesses[:, 1])  # a number has no pseudo label
        corrections = (errors[:, 2] - numbers + (errors[:, 2] - numbers).square())[[0, 1, 3]] / p[[0, 1, 3]]
        torch.testing.assert_close(losses[2], (numbers[rows].sum() + corrections.sum()) / 5)

    @pytest.mark.parametrize("training", ["ips", "dr"])
    def test_propensities_carry_no_gradient(self, batch, training):
        losses, _, logits, _, _ = self.run(batch, training, joint_weight=0.0)
        (slope,) = torch.autograd.grad(losses[1] + losses[2], logits)
        assert not slope[:, 0].any()
        assert slope[:2, 1].all()

    def test_pseudo_labels_teach_rows_without_a_label(self, batch):
        """And imputed errors do not: with them the task's gradient is that of ips."""
        for imputation in ("label", "error"):
            losses, _, logits, _, _ = self.run(batch, "dr", joint_weight=0.0, imputation=imputation)
            (slope,) = torch.autograd.grad(losses[1], logits)
            unseen = slope[[2, 3, 5], 1]
            assert (unseen != 0).all() if imputation == "label" else not unseen.any()
        (other,) = torch.autograd.grad((ips := self.run(batch, "ips", joint_weight=0.0))[0][1], ips[2])
        torch.testing.assert_close(slope, other)

    def test_the_task_does_not_teach_the_imputation(self, batch):
        """The imputation tower feels its own risk alone."""
        losses, _, logits, guesses, _ = self.run(
            batch, "dr", joint_weight=0.0, correction_weight=1.0, imputation="label"
        )
        (slope,) = torch.autograd.grad(losses[1], guesses)
        p = torch.sigmoid(logits[:, 0]).detach().clamp(min=0.05)
        wanted = (torch.sigmoid(guesses[:, 0]) - batch["labels"][:, 1]) / p / 5
        torch.testing.assert_close(slope[[0, 1], 0], wanted[[0, 1]].detach())
        assert not slope[2:, 0].any()

    @pytest.mark.parametrize("training", ["own", "entire", "direct", "ips", "dr"])
    def test_a_row_of_weight_two_is_two_rows(self, batch, training):
        doubled = {name: torch.cat([part, part[2:3], part[0:1]]) for name, part in batch.items()}
        weights = torch.ones(6, 3, dtype=DOUBLE)
        weights[[0, 2]] = 2
        z = torch.randn(6, 5, dtype=DOUBLE, generator=torch.Generator().manual_seed(4))
        found = []
        for rows, part, weight in ((z, batch, weights), (torch.cat([z, z[2:3], z[0:1]]), doubled, None)):
            errors = (rows[:, :3] - part["labels"]).square()
            config, tree = SpaceConfig(training), (self.PARENTS, self.BINARY)
            losses = space_losses(
                errors, rows[:, :3], rows[:, 3:], config=config, parents=tree[0], binary=tree[1], weights=weight, **part
            )
            found.append((losses, counting_rows(config, *tree, part["where"], part["joint"], weight).sum(dim=0)))
        torch.testing.assert_close(found[0][0], found[1][0])
        assert found[0][1].tolist() == found[1][1].tolist()

    @pytest.mark.parametrize("training", ["own", "entire", "direct", "ips", "dr"])
    def test_without_labels_there_is_neither_loss_nor_gradient(self, batch, training):
        batch = {
            "labels": batch["labels"] * 0,
            "where": batch["where"] & False,
            "joint": torch.full_like(batch["joint"], -1),
        }
        losses, masses, logits, guesses, _ = self.run(batch, training)
        slopes = torch.autograd.grad(losses.sum(), [logits, guesses], allow_unused=True)
        assert not losses.any()
        assert not masses.any()
        assert not any(slope.any() for slope in slopes if slope is not None)

    @pytest.mark.parametrize("training", ["entire", "direct", "ips", "dr"])
    def test_without_parents_all_trainings_are_one(self, training):
        z, label = torch.randn(8, 2), (torch.rand(8, 2) < 0.5).float()
        errors = entropy(z, label)
        config, tree = SpaceConfig(training), ((ROOT, ROOT), (True, True))
        losses = space_losses(
            errors, z, z[:, :0], config=config, parents=tree[0], binary=tree[1], labels=label, where=label < 2
        )
        torch.testing.assert_close(losses, errors.mean(dim=0))
        assert counting_rows(config, *tree, label < 2, None, None).sum(dim=0).tolist() == [8, 8]


def test_the_entire_space_learns_the_truth_of_a_chain_of_three():
    """A tree of two branches, logits free for each of eight kinds of row: the joint loss alone finds p(t | parent)."""
    rng = np.random.default_rng(0)
    parents, rows = (ROOT, 0, 1, 0), 400_000
    truth = rng.uniform(0.2, 0.8, (8, 4))
    kind = rng.integers(0, 8, rows)
    events = rng.random((rows, 4)) < truth[kind]
    joint = np.stack([events[:, 0], events[:, :2].all(1), events[:, :3].all(1), events[:, [0, 3]].all(1)], axis=1)
    z = torch.zeros(8, 4, dtype=DOUBLE, requires_grad=True)
    share = torch.zeros(8, 4, dtype=DOUBLE)
    for index in range(8):
        share[index] = torch.from_numpy(joint[kind == index].mean(axis=0))
    optimizer = torch.optim.LBFGS([z], max_iter=200, line_search_fn="strong_wolfe")

    def loss():
        optimizer.zero_grad()
        yes, no = log_joint(z, parents)
        total = -(share * yes + (1 - share) * no).mean()
        total.backward()
        return total

    optimizer.step(loss)
    np.testing.assert_allclose(torch.sigmoid(z).detach().numpy(), truth, atol=0.02)
