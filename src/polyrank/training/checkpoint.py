"""Checkpoints: one safetensors file with everything, checked by a digest, written atomically."""

import hashlib
import json
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from polyrank.errors import RunError
from polyrank.files import writing

FORMAT = "1"
_TENSOR = "$tensor"


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Write a tree of dicts, lists, tensors and JSON values.

    Raises:
        StorageError: the disk is full; an earlier file at `path` is untouched.
    """
    tensors: dict[str, Tensor] = {}
    text = json.dumps(_take_out(state, "", tensors))
    metadata = {"format": FORMAT, "state": text, "digest": _digest(tensors, text)}
    _separate(tensors)
    with writing(path) as temporary:
        try:
            save_file(tensors, str(temporary), metadata=metadata)
        except SafetensorError as error:
            # The library wraps the operating system's error in a text of its own.
            raise OSError(str(error)) from error


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote.

    Raises:
        RunError: missing, truncated, of another format, or a byte differs.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # not a dict
    except FileNotFoundError as error:
        raise RunError("a checkpoint must be there", received=f"no file {path}", mend="train first") from error
    except (SafetensorError, OSError, ValueError, struct.error) as error:
        raise _damaged(path, str(error)) from error
    if metadata.get("format") != FORMAT:
        raise _damaged(path, f"format {metadata.get('format')}, not {FORMAT}")
    text = metadata.get("state", "")  # a damaged header may have lost it
    if metadata.get("digest") != _digest(tensors, text):
        raise _damaged(path, "its digest differs from its contents")
    state: dict[str, Any] = _put_back(json.loads(text), tensors)
    return state


def _damaged(path: Path, what: str) -> RunError:
    return RunError(
        "a checkpoint must be whole", received=f"{path}: {what}", mend="delete it, or train again into a new directory"
    )


def _take_out(value: Any, path: str, tensors: dict[str, Tensor]) -> Any:
    """Replace each tensor of a tree by its name, and collect them."""
    if isinstance(value, Tensor):
        while path in tensors:  # keys may hold dots: {"a.b": …, "a": {"b": …}}
            path += "'"
        tensors[path] = value.detach().contiguous()
        return {_TENSOR: path}
    if isinstance(value, Mapping):
        return {str(key): _take_out(inner, f"{path}.{key}".strip("."), tensors) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_take_out(inner, f"{path}.{index}", tensors) for index, inner in enumerate(value)]
    return value


def _separate(tensors: dict[str, Tensor]) -> None:
    """Copy tensors that share memory with an earlier one (tied weights): the format refuses them."""
    seen: set[int] = set()
    for name, tensor in tensors.items():
        memory = tensor.untyped_storage().data_ptr()
        if memory in seen:
            tensors[name] = tensor.clone()
        seen.add(memory)


def _put_back(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_TENSOR}:
            return tensors[value[_TENSOR]]
        return {key: _put_back(inner, tensors) for key, inner in value.items()}
    if isinstance(value, list):
        return [_put_back(inner, tensors) for inner in value]
    return value


def _digest(tensors: Mapping[str, Tensor], text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{list(tensor.shape)}:".encode())
        digest.update(tensor.contiguous().view(-1).view(torch.uint8).numpy().data if tensor.numel() else b"")
    return digest.hexdigest()
