"""What learners see of a log, where sessions end and where they are cut off, and when learning is stopped."""

import numpy as np
import pytest
import torch

from polyrank.errors import DataError, TrainingDiverged
from polyrank.fusion.learners.learning import ActorCriticConfig, Batch, Experience, learn, targets
from polyrank.fusion.policy import Box
from polyrank.fusion.sessions import SessionLog
from polyrank.progress import Progress, Silent


def log_of(done=(True, False)):
    """Two sessions of 3 and 2 steps; states count the rows."""
    states = np.arange(5, dtype=np.float32)[:, None]
    actions = np.array([[0.0], [1.0], [4.0], [2.0], [3.0]], np.float32)
    ends = np.array([False, False, done[0], False, done[1]])
    return SessionLog(
        np.arange(2), np.array([0, 3, 5]), states, actions, np.zeros(5), np.array([0.0, 10.0, 20.0, 30.0, 40.0]), ends
    )


def seen(log):
    data = Experience(log, Box.of(log))
    return data, data.sample(400, torch.Generator().manual_seed(0))


def test_a_step_has_what_followed_it():
    log = log_of()
    data, batch = seen(log)
    rows = batch.at.numpy()
    assert set(rows.tolist()) == {0, 1, 2, 3}  # what followed row 4 is unknown
    deviation = np.std(log.rewards)
    np.testing.assert_allclose(batch.rewards[:, 0].numpy() * deviation, log.rewards[rows], rtol=1e-6)
    assert data.unit == pytest.approx(deviation)
    np.testing.assert_allclose(batch.states[:, 0].numpy(), (rows - 2) / np.sqrt(2), rtol=1e-6)
    going = rows != 2
    np.testing.assert_array_equal(batch.going[:, 0].numpy(), going)
    np.testing.assert_array_equal(batch.after.numpy()[going], rows[going] + 1)
    np.testing.assert_allclose(batch.following[:, 0].numpy()[going], (rows[going] - 1) / np.sqrt(2), rtol=1e-6)
    np.testing.assert_allclose(batch.actions[:, 0].numpy(), log.actions[rows, 0] / 2 - 1, rtol=1e-6)
    np.testing.assert_allclose(data.beginnings[:, 0].numpy(), [-2 / np.sqrt(2), 1 / np.sqrt(2)], rtol=1e-6)


def test_the_last_row_of_a_log_may_be_an_end():
    _, batch = seen(log_of(done=(True, True)))
    assert set(batch.at.tolist()) == {0, 1, 2, 3, 4}
    assert torch.isfinite(batch.following).all()


def test_a_log_of_single_steps_that_were_cut_off_teaches_nothing():
    log = SessionLog(
        np.arange(2), np.arange(3), np.zeros((2, 1), np.float32), np.zeros((2, 1), np.float32), np.zeros(2),
        np.zeros(2), np.zeros(2, np.bool_),
    )  # fmt: skip
    with pytest.raises(DataError, match="a step whose outcome is known"):
        Experience(log, Box.of(log))


def test_targets_by_hand():
    rewards, going = torch.tensor([[1.0], [1.0]]), torch.tensor([[1.0], [0.0]])
    batch = Batch(
        torch.empty(2, 1), torch.empty(2, 1), rewards, torch.empty(2, 1), going, torch.empty(2), torch.empty(2)
    )
    following = torch.tensor([[[10.0], [10.0]], [[20.0], [20.0]]])
    torch.testing.assert_close(targets(batch, 0.5, following), torch.tensor([[[6.0], [1.0]], [[11.0], [1.0]]]))


class Told(Silent):
    """Counts what the bar was told."""

    def __init__(self):
        self.steps, self.label = 0, ""

    def bar(self, label, total, unit="rows"):
        self.label, self.total = label, total
        return super().bar(label, total, unit)

    def advance(self, rows, note=""):
        self.steps += rows


@pytest.mark.parametrize("steps", [1, 7, 130])
def test_every_step_is_run_and_told(steps):
    log, told, ran = log_of(), Told(), []
    data = Experience(log, Box.of(log))
    config = ActorCriticConfig(steps=steps)
    curve = learn(
        "it", data, config, torch.Generator().manual_seed(0), lambda batch, number: ran.append(number),
        lambda states: states.sum(dim=1) * 0 + 2, told,
    )  # fmt: skip
    assert ran == list(range(1, steps + 1))
    assert (told.label, told.total, told.steps) == ("it", steps, steps)
    assert isinstance(told, Progress)
    assert curve[-1] == (steps, pytest.approx(2 * data.unit))
    assert len(curve) <= 66


@pytest.mark.parametrize("wrong", [float("nan"), 1e9, -1e9])
def test_q_that_runs_away_is_told(wrong):
    log = log_of()
    data = Experience(log, Box.of(log))
    with pytest.raises(TrainingDiverged, match="it: Q must stay within what rewards allow"):
        learn(
            "it", data, ActorCriticConfig(steps=3), torch.Generator(), lambda batch, number: None,
            lambda states: torch.full((len(states),), wrong), Silent(),
        )  # fmt: skip
