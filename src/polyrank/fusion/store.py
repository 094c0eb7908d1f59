"""Saved fusions: `fusion.json`, and `fusion.safetensors` beside it where a fusion has arrays; and their registry."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from polyrank.fusion.formula import Formula
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.lambdarank import LambdaRankFusion
from polyrank.fusion.listwise import ListwiseFusion
from polyrank.fusion.monotone import MonotoneFusion
from polyrank.fusion.saved import read_saved, write_saved
from polyrank.fusion.segments import Segmented

FILE = "fusion.json"
KINDS: tuple[type[Fusion], ...] = (Formula, Segmented, LambdaRankFusion, MonotoneFusion, ListwiseFusion)
FUSIONS: Mapping[str, type[Fusion]] = MappingProxyType({kind.kind: kind for kind in KINDS})


def save_fusion(fusion: Fusion, directory: Path) -> None:
    """Write a fusion into a directory, over an earlier one.

    Raises:
        StorageError: it cannot be written.
    """
    write_saved("fusion", fusion.kind, fusion.document(), fusion.arrays(), directory)


def load_fusion(directory: Path) -> Fusion:
    """Read what `save_fusion` wrote.

    Raises:
        RunError: it is missing, damaged, or of another format.
    """
    return read_saved("fusion", FUSIONS, lambda kind, document, arrays: kind.restore(document, arrays), directory)
