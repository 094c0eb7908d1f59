"""Golden values on two fixed sets of gradients, worked out from the papers' conditions by other means; torchjd."""

import numpy as np
import pytest
import torch
from torchjd.aggregation import FairGradWeighting, IMTLGWeighting, MGDAWeighting

from polyrank.balancing.gradients import (
    IMTLG,
    MGDA,
    PELTR,
    AlignedMTL,
    AlignedMTLConfig,
    CAGrad,
    CAGradConfig,
    FairGrad,
    FairGradConfig,
    IMTLGConfig,
    MGDAConfig,
    NashMTL,
    NashMTLConfig,
    PELTRConfig,
    UPGrad,
    UPGradConfig,
)

TASKS = ["click", "like", "watch"]
A = [[1.0, 2.0, 0.0, 1.0], [-1.0, 1.0, 1.0, 0.0], [0.5, -2.0, 1.0, 2.0]]
B = [[1.0, 0.0], [-0.5, 2.0]]
LOSSES = [0.7, 0.2, 1.5]


def close(found, expected, tolerance=1e-6):
    torch.testing.assert_close(torch.as_tensor(found).double(), torch.tensor(expected).double(), rtol=0, atol=tolerance)


def weights_on(kind, config, step):
    """The weights of a fresh balancer for a step."""
    return kind(TASKS[: len(step.losses)], config).backward(step)


CASES = [
    (MGDA, MGDAConfig(scale="paper"), A, (0.209246, 0.523114, 0.267640)),
    (MGDA, MGDAConfig(scale="paper"), B, (0.76, 0.24)),
    (MGDA, MGDAConfig(), A, (0.627737, 1.569343, 0.802920)),
    (PELTR, PELTRConfig(scale="paper"), A, (0.209246, 0.523114, 0.267640)),
    (CAGrad, CAGradConfig(rescale=0, scale="paper"), A, (0.333333, 0.710567, 0.374966)),
    (CAGrad, CAGradConfig(scale="paper"), A, (0.266667, 0.568454, 0.299973)),
    (CAGrad, CAGradConfig(radius=0.4, rescale=0, scale="paper"), A, (0.333333, 0.627045, 0.340003)),
    (CAGrad, CAGradConfig(rescale=0, scale="paper"), B, (1.015388, 0.5)),
    (UPGrad, UPGradConfig(scale="paper"), A, (0.392157, 0.480392, 0.441441)),
    (UPGrad, UPGradConfig(scale="paper"), B, (0.75, 0.558824)),
    (NashMTL, NashMTLConfig(max_norm=0, scale="paper"), A, (0.409719, 0.615843, 0.422303)),
    (NashMTL, NashMTLConfig(max_norm=0, scale="paper"), B, (1.148997, 0.557345)),
    (FairGrad, FairGradConfig(max_norm=0, alpha=0.5, scale="paper"), A, (0.556463, 0.725743, 0.556725)),
    (FairGrad, FairGradConfig(max_norm=0, alpha=1.0, scale="paper"), A, (0.409719, 0.615843, 0.422303)),
    (FairGrad, FairGradConfig(max_norm=0, alpha=2.0, scale="paper"), A, (0.298646, 0.523037, 0.323360)),
    (FairGrad, FairGradConfig(max_norm=0, alpha=5.0, scale="paper"), A, (0.214912, 0.445126, 0.249715)),
    (FairGrad, FairGradConfig(max_norm=0, alpha=2.0, scale="paper"), B, (1.165189, 0.477564)),
    (IMTLG, IMTLGConfig(scale="paper"), A, (0.259206, 0.426747, 0.314047)),
    (IMTLG, IMTLGConfig(scale="paper"), B, (0.673368, 0.326632)),
    (AlignedMTL, AlignedMTLConfig(scale="paper"), A, (0.213006, 0.326450, 0.227466)),
    (AlignedMTL, AlignedMTLConfig(scale="paper", length="median"), A, (0.313269, 0.480110, 0.334535)),
    (AlignedMTL, AlignedMTLConfig(scale="paper", length="rmse"), A, (0.330658, 0.506760, 0.353104)),
    (AlignedMTL, AlignedMTLConfig(scale="paper"), B, (0.533581, 0.276672)),
]
ABSENT = [
    (MGDA, MGDAConfig(scale="paper"), (0.589041, 0.0, 0.410959)),
    (NashMTL, NashMTLConfig(max_norm=0, scale="paper"), (0.456820, 0.0, 0.367917)),
    (FairGrad, FairGradConfig(max_norm=0, alpha=2.0, scale="paper"), (0.348752, 0.0, 0.266120)),
    (IMTLG, IMTLGConfig(scale="paper"), (0.553898, 0.0, 0.446102)),
    (CAGrad, CAGradConfig(rescale=0, scale="paper"), (0.860772, 0.0, 0.600539)),
]


@pytest.mark.parametrize(("kind", "config", "jacobian", "expected"), CASES)
def test_golden_weights(kind, config, jacobian, expected, jacobian_step):
    step = jacobian_step(LOSSES[: len(jacobian)], jacobian)
    close(weights_on(kind, config, step), expected)
    close(step.pushed, expected)
    assert step.pulled.tolist() == [1.0] * len(jacobian)  # own parameters get their own gradient
    close(step.direction, (torch.tensor(expected) @ torch.tensor(jacobian)).tolist(), 1e-5)


@pytest.mark.parametrize(("kind", "config", "expected"), ABSENT)
def test_golden_weights_without_the_second_task(kind, config, expected, jacobian_step):
    close(weights_on(kind, config, jacobian_step(LOSSES, A, [True, False, True])), expected)


@pytest.mark.parametrize(("kind", "config", "expected"), ABSENT)
def test_a_task_whose_gradient_is_zero_stops_nothing(kind, config, expected, jacobian_step):
    """As a row of zeros it would: MGDA's answer is then no step at all, CAGrad's too, FairGrad's weight explodes."""
    flat = [A[0], [0.0] * 4, A[2]]
    found = weights_on(kind, config, jacobian_step(LOSSES, flat))
    close(found[[0, 2]], (expected[0], expected[2]))


class TestGuardsOfTorchjd:
    """What torchjd 0.18 does with a ranker's small, uneven or opposite gradients, and that ours does not."""

    SMALL = torch.tensor(A, dtype=torch.float64) * 1e-3  # trace of the Gramian 1.8e-5: as of a batch of thousands

    @pytest.mark.parametrize(("kind", "config", "jacobian", "expected"), CASES)
    def test_small_gradients_change_no_direction(self, kind, config, jacobian, expected, jacobian_step):
        step = jacobian_step(LOSSES[: len(jacobian)], torch.tensor(jacobian) * 1e-6)
        found = weights_on(kind, config, step)
        close(found / found.sum(), (torch.tensor(expected) / sum(expected)).tolist())

    def test_mgda_is_exact(self):
        gramian = torch.tensor(A, dtype=torch.float64) @ torch.tensor(A, dtype=torch.float64).T
        assert (MGDAWeighting()(gramian) - torch.tensor([0.209246, 0.523114, 0.267640])).abs().max() > 1e-3
        close(MGDAWeighting(epsilon=1e-9, max_iters=10_000)(gramian), (0.209246, 0.523114, 0.267640), 2e-6)

    def test_imtl_g_never_turns_against_every_task(self, jacobian_step):
        flipped = torch.tensor([[-1.0, 3.0, 1.0], [-1.0, -3.0, 2.0], [-1.0, 1.0, 1.0]], dtype=torch.float64)
        theirs = IMTLGWeighting()(flipped @ flipped.T)
        close(theirs, (-5.036843, -2.221695, 8.258538))
        close(flipped @ (theirs @ flipped), (-0.782409, -0.882676, -0.408600))
        step = jacobian_step(LOSSES, flipped)
        weights_on(IMTLG, IMTLGConfig(), step)
        gains = flipped @ step.direction / flipped.norm(dim=1)
        assert (gains > 0).all()
        close(gains / gains[0], (1.0, 1.0, 1.0), 1e-5)  # pushed as float32

    @pytest.mark.parametrize("alpha", [0.5, 1.0, 2.0])
    def test_fairgrad_agrees_with_its_solver(self, alpha, jacobian_step):
        rng = np.random.default_rng(0)
        for _ in range(10):
            jacobian = torch.from_numpy(rng.normal(size=(3, 6)))
            theirs = FairGradWeighting(alpha)(jacobian @ jacobian.T)
            ours = weights_on(
                FairGrad, FairGradConfig(max_norm=0, alpha=alpha, scale="paper"), jacobian_step(LOSSES, jacobian)
            )
            close(ours, theirs.tolist(), 2e-4)  # scipy's least squares stops at its own tolerance

    def test_upgrad_hurts_no_task_whose_gradient_is_short(self, jacobian_step):
        """Torchjd's ridge of 1e-4 gives the third task −0.189 here."""
        rows = torch.tensor(A, dtype=torch.float64) * torch.tensor([[10.0], [1.0], [0.1]])
        step = jacobian_step(LOSSES, rows)
        weights_on(UPGrad, UPGradConfig(scale="paper"), step)
        assert (rows @ step.direction)[2].item() == pytest.approx(0.027745, abs=1e-6)


class TestPELTR:
    @pytest.mark.parametrize(
        ("bounds", "solver", "expected"),
        [
            ((0.2, 0.1, 0.3), "exact", (0.2, 0.5, 0.3)),
            ((0.2, 0.1, 0.3), "projection", (0.2, 0.5, 0.3)),
            ((0.3, 0.1, 0.1), "exact", (0.3, 0.444262, 0.255738)),
            ((0.3, 0.1, 0.1), "projection", (0.3, 0.477737, 0.222263)),
        ],
    )
    def test_golden(self, bounds, solver, expected, jacobian_step):
        config = PELTRConfig(bounds=dict(zip(TASKS, bounds, strict=True)), solver=solver, scale="paper")
        close(weights_on(PELTR, config, jacobian_step(LOSSES, A)), expected)

    def test_bounds_must_leave_room(self):
        with pytest.raises(ValueError, match=r"sum to less than 1. Received: 1.1"):
            PELTR(TASKS, PELTRConfig(bounds={"click": 0.6, "like": 0.5}))
        with pytest.raises(ValueError, match="bounds must name tasks"):
            PELTR(TASKS, PELTRConfig(bounds={"nobody": 0.1}))


class TestBargains:
    def test_the_norm_is_cut(self, jacobian_step):
        step = jacobian_step(LOSSES, A)
        weights_on(NashMTL, NashMTLConfig(scale="paper"), step)
        close(step.direction, (0.002903, 0.341025, 0.599374, 0.724185))
        assert step.direction.norm().item() == pytest.approx(1.0)

    def test_the_bargains_equations_hold(self, jacobian_step):
        rng = np.random.default_rng(1)
        for _ in range(20):
            jacobian = torch.from_numpy(rng.normal(size=(3, 6)) * 10 ** rng.uniform(-2, 2, (3, 1)))
            gramian = jacobian @ jacobian.T
            nash = weights_on(NashMTL, NashMTLConfig(max_norm=0, scale="paper"), jacobian_step(LOSSES, jacobian))
            close(nash * (gramian @ nash), [1.0] * 3)
            assert (nash @ gramian @ nash).item() == pytest.approx(3.0, abs=1e-5)
            fair = weights_on(
                FairGrad, FairGradConfig(max_norm=0, alpha=2.0, scale="paper"), jacobian_step(LOSSES, jacobian)
            )
            close((gramian @ fair) * fair**0.5, [1.0] * 3)


HARMLESS = [(MGDA, MGDAConfig()), (UPGrad, UPGradConfig()), (NashMTL, NashMTLConfig()), (FairGrad, FairGradConfig())]


@pytest.mark.parametrize(("kind", "config"), HARMLESS)
def test_no_task_loses(kind, config, jacobian_step):
    rng = np.random.default_rng(2)
    for _ in range(25):
        jacobian = torch.from_numpy(rng.normal(size=(3, 4)) * 10 ** rng.uniform(-2, 2, (3, 1)))
        step = jacobian_step(LOSSES, jacobian)
        weights_on(kind, config, step)
        gains = jacobian @ step.direction / (jacobian.norm(dim=1) * step.direction.norm())
        assert gains.min() > -1e-6


@pytest.mark.parametrize(
    ("kind", "config"), [*HARMLESS, (CAGrad, CAGradConfig()), (AlignedMTL, AlignedMTLConfig()), (IMTLG, IMTLGConfig())]
)
def test_rotating_the_space_changes_nothing(kind, config, jacobian_step):
    turn = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))[0]
    plain = weights_on(kind, config, jacobian_step(LOSSES, A))
    close(weights_on(kind, config, jacobian_step(LOSSES, torch.tensor(A, dtype=torch.float64) @ turn)), plain.tolist())


def test_mgda_and_upgrad_stand_still_where_nothing_can_be_gained(jacobian_step):
    for kind, config in ((MGDA, MGDAConfig()), (UPGrad, UPGradConfig()), (CAGrad, CAGradConfig())):
        step = jacobian_step([1.0, 1.0], [[1.0, 2.0], [-1.0, -2.0]])
        weights_on(kind, config, step)
        assert step.direction.abs().max() < 1e-6


def test_cagrad_keeps_its_distance_from_the_mean_gradient(jacobian_step):
    for radius in (0.2, 0.8):
        step = jacobian_step(LOSSES, A)
        weights_on(CAGrad, CAGradConfig(radius=radius, rescale=0, scale="paper"), step)
        mean = torch.tensor(A, dtype=torch.float64).mean(dim=0)
        assert ((step.direction - mean).norm() / mean.norm()).item() == pytest.approx(radius, abs=1e-6)
    close(weights_on(CAGrad, CAGradConfig(radius=0.0), jacobian_step(LOSSES, A)), [1.0] * 3)
    far = weights_on(CAGrad, CAGradConfig(radius=1e4), jacobian_step(LOSSES, A))
    close(far, weights_on(MGDA, MGDAConfig(), jacobian_step(LOSSES, A)).tolist(), 2e-3)


def test_without_conflict_upgrad_is_the_mean(jacobian_step):
    close(weights_on(UPGrad, UPGradConfig(), jacobian_step(LOSSES, [[1.0, 0.1], [0.5, 0.5], [0.0, 2.0]])), [1.0] * 3)


def test_weights_are_kept_for_as_many_steps_as_asked(jacobian_step):
    balancer = MGDA(TASKS, MGDAConfig(every=3))
    rng = np.random.default_rng(3)
    found = [balancer.backward(jacobian_step(LOSSES, rng.normal(size=(3, 5)))) for _ in range(7)]
    assert all(torch.equal(found[0], found[number]) for number in (1, 2))
    assert not torch.equal(found[2], found[3])
    assert torch.equal(found[3], found[5])
    absent = balancer.backward(jacobian_step(LOSSES, A, [True, False, True]))  # another set: anew at once
    close(absent, (2 * 0.589041, 0.0, 2 * 0.410959), 2e-6)


def test_a_gradient_that_is_not_finite_is_left_to_the_loop(jacobian_step):
    step = jacobian_step(LOSSES, [[np.inf, 0.0], [1.0, 1.0], [0.0, 1.0]])
    assert weights_on(MGDA, MGDAConfig(), step).tolist() == [1.0] * 3
