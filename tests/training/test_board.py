import sys

import pytest

from polyrank.errors import RunFailed
from polyrank.training.board import tensorboard


def test_nothing_is_written_unless_wanted(tmp_path):
    with tensorboard(tmp_path / "events", wanted=False) as board:
        assert board is None
    assert not (tmp_path / "events").exists()


def test_the_writer_is_closed_also_after_an_error(tmp_path):
    def interrupted():
        with tensorboard(tmp_path, wanted=True) as board:
            board.add_scalar("loss", 0.5, 1)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    (file,) = tmp_path.glob("events.out.tfevents.*")
    assert b"loss" in file.read_bytes()  # flushed


def test_a_missing_package_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RunFailed, match=r"pip install 'polyrank\[tensorboard\]'"), tensorboard(tmp_path, wanted=True):
        pass
