"""A checkpoint is whole, or it is an error; and it comes back as it went."""

import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import save_file

from polyrank.errors import RunError, StorageError
from polyrank.training import checkpoint
from polyrank.training.checkpoint import load_checkpoint, save_checkpoint

POSITIONS = 40


def a_state():
    generator = torch.Generator().manual_seed(0)
    return {
        "model": {"tower.weight": torch.randn(3, 2, generator=generator), "tower.bias": torch.tensor([0.5])},
        "place": {"epoch": 3, "best": None},
        "generator": torch.arange(20, dtype=torch.uint8),
    }


@pytest.fixture
def saved(tmp_path):
    path = tmp_path / "last.safetensors"
    save_checkpoint(path, a_state())
    return path


def same(one, other):
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return isinstance(other, dict) and list(one) == list(other) and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list):
        return isinstance(other, list) and len(one) == len(other) and all(map(same, one, other))
    return type(one) is type(other) and one == other


class TestRoundTrip:
    @pytest.mark.parametrize(
        "value",
        [
            7,
            2**60,
            -0.1,
            float("inf"),
            True,
            None,
            "naïve ☃",
            "",
            [],
            {},
            [1, [2.5, [None, {"deep": [True]}]]],
            torch.tensor(3.25),
            torch.zeros(0),
            torch.zeros(0, 4),
            torch.zeros(3, 0, 2),
            [torch.ones(2), 1, torch.zeros(1)],
            {"a": {"b": torch.ones(1)}, "a.b": torch.zeros(1)},  # two paths that read alike
            {"": torch.ones(1), ".": torch.zeros(1)},
            torch.arange(12.0).view(3, 4).t(),  # not contiguous
            torch.ones(4).expand(3, 4),
        ],
        ids=repr,
    )
    def test_values_survive(self, value, tmp_path):
        save_checkpoint(tmp_path / "c", {"value": value, "after": 1})
        assert same(load_checkpoint(tmp_path / "c"), {"value": value, "after": 1})

    @pytest.mark.parametrize(
        "dtype",
        [
            torch.float64,
            torch.float32,
            torch.bfloat16,
            torch.float16,
            torch.int64,
            torch.int32,
            torch.uint8,
            torch.bool,
        ],
    )
    def test_types_survive(self, dtype, tmp_path):
        tensor = torch.tensor([[0, 1], [1, 0]]).to(dtype)
        save_checkpoint(tmp_path / "c", {"x": tensor, "scalar": tensor[0, 1]})
        assert same(load_checkpoint(tmp_path / "c"), {"x": tensor, "scalar": tensor[0, 1]})

    def test_bits_survive(self, tmp_path):
        tensor = torch.tensor([float("nan"), -0.0, float("inf"), 1e-45, 3.4e38])
        save_checkpoint(tmp_path / "c", {"x": tensor})
        found = load_checkpoint(tmp_path / "c")["x"]
        assert torch.equal(found.view(torch.int32), tensor.view(torch.int32))

    def test_tuples_become_lists_and_keys_text(self, tmp_path):
        save_checkpoint(tmp_path / "c", {"betas": (0.9, 0.999), "state": {0: {"step": torch.tensor(1.0)}}})
        assert same(
            load_checkpoint(tmp_path / "c"), {"betas": [0.9, 0.999], "state": {"0": {"step": torch.tensor(1.0)}}}
        )

    def test_tied_weights_are_written_twice(self, tmp_path):
        weight = torch.arange(6.0)
        state = {"one": weight, "other": weight, "part": weight[:2], "turned": weight.view(2, 3).t()}
        save_checkpoint(tmp_path / "c", state)
        assert same(load_checkpoint(tmp_path / "c"), state)
        assert torch.equal(weight, torch.arange(6.0))

    def test_parameters_come_back_as_plain_tensors(self, tmp_path):
        parameter = torch.nn.Parameter(torch.ones(2))
        save_checkpoint(tmp_path / "c", {"x": parameter})
        assert not load_checkpoint(tmp_path / "c")["x"].requires_grad

    def test_an_optimizer_survives(self, tmp_path):
        parameter = torch.nn.Parameter(torch.ones(2))
        optimizer = torch.optim.AdamW([parameter], lr=0.1)
        parameter.grad = torch.ones(2)
        optimizer.step()
        save_checkpoint(tmp_path / "c", optimizer.state_dict())
        state = load_checkpoint(tmp_path / "c")
        other = torch.optim.AdamW([torch.nn.Parameter(parameter.detach().clone())], lr=9.0)
        other.load_state_dict({**state, "state": {int(key): value for key, value in state["state"].items()}})
        restored = other.state_dict()
        assert restored["state"][0]["step"] == optimizer.state_dict()["state"][0]["step"]
        assert torch.equal(restored["state"][0]["exp_avg"], optimizer.state_dict()["state"][0]["exp_avg"])
        assert restored["param_groups"][0]["lr"] == 0.1

    def test_a_second_checkpoint_replaces_the_first(self, saved):
        save_checkpoint(saved, {"x": 1})
        assert load_checkpoint(saved) == {"x": 1}
        assert list(saved.parent.iterdir()) == [saved]


class TestDamage:
    @pytest.mark.parametrize("mask", [0x01, 0x80, 0xFF])
    def test_a_flipped_byte_anywhere_is_found(self, saved, mask):
        whole = saved.read_bytes()
        places = {round(i * (len(whole) - 1) / (POSITIONS - 1)) for i in range(POSITIONS)}
        # Keys of the header itself: whoever reads them must not trust that they are there.
        for key in (b"__metadata__", b"format", b"digest", b'"state"', b"dtype", b"shape", b"data_offsets"):
            places.add(whole.index(key) + 2)
        assert {0, len(whole) - 1} < places
        for place in sorted(places):
            damaged = bytearray(whole)
            damaged[place] ^= mask
            saved.write_bytes(damaged)
            with pytest.raises(RunError, match="must be whole"):
                load_checkpoint(saved)

    def test_a_truncated_file_is_found(self, saved):
        whole = saved.read_bytes()
        for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
            saved.write_bytes(whole[:length])
            with pytest.raises(RunError, match="must be whole"):
                load_checkpoint(saved)

    def test_added_bytes_are_found(self, saved):
        saved.write_bytes(saved.read_bytes() + b"\0")
        with pytest.raises(RunError, match="must be whole"):
            load_checkpoint(saved)

    def test_a_missing_file_says_so(self, tmp_path):
        with pytest.raises(RunError, match="must be there") as caught:
            load_checkpoint(tmp_path / "best.safetensors")
        assert "best.safetensors" in str(caught.value)
        assert "train" in caught.value.mend

    def test_a_directory_is_no_checkpoint(self, tmp_path):
        with pytest.raises(RunError):
            load_checkpoint(tmp_path)

    def test_another_format_is_refused(self, tmp_path):
        path = tmp_path / "c"
        save_file({"x": torch.ones(1)}, str(path), metadata={"format": "2"})
        with pytest.raises(RunError, match="format 2, not 1"):
            load_checkpoint(path)

    def test_someone_elses_safetensors_file_is_refused(self, tmp_path):
        path = tmp_path / "c"
        save_file({"x": torch.ones(1)}, str(path))
        with pytest.raises(RunError, match="format None"):
            load_checkpoint(path)
        save_file({"x": torch.ones(1)}, str(path), metadata={"format": "1"})
        with pytest.raises(RunError, match="digest"):
            load_checkpoint(path)


class TestFailingWrites:
    @pytest.mark.parametrize("error", [OSError(28, "No space left on device"), checkpoint.SafetensorError("I/O error")])
    def test_the_earlier_file_stays(self, saved, monkeypatch, error):
        def fail(tensors, path, metadata):
            with open(path, "wb") as stream:
                stream.write(b"a part")
            raise error

        monkeypatch.setattr(checkpoint, "save_file", fail)
        with pytest.raises(StorageError, match="cannot write"):
            save_checkpoint(saved, {"x": torch.ones(1)})
        assert same(load_checkpoint(saved), a_state())
        assert list(saved.parent.iterdir()) == [saved]

    @pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
    def test_a_full_disk_leaves_the_earlier_file(self, saved):
        script = (
            "import resource, sys, torch\n"
            "from pathlib import Path\n"
            "from polyrank.errors import StorageError\n"
            "from polyrank.training.checkpoint import save_checkpoint\n"
            "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
            "try:\n"
            "    save_checkpoint(Path(sys.argv[1]), {'x': torch.ones(100_000)})\n"
            "except StorageError:\n"
            "    sys.exit(42)\n"
        )
        result = subprocess.run([sys.executable, "-c", script, str(saved)], capture_output=True, text=True, check=False)
        assert result.returncode == 42, result.stderr
        assert same(load_checkpoint(saved), a_state())
        assert list(saved.parent.iterdir()) == [saved]

    def test_what_cannot_be_saved_touches_nothing(self, saved):
        with pytest.raises(TypeError):
            save_checkpoint(saved, {"x": object()})
        assert same(load_checkpoint(saved), a_state())
