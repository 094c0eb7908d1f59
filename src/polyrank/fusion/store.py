"""Saved fusions: `fusion.json`, and `fusion.safetensors` beside it where a fusion has arrays; and their registry."""

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from polyrank.config import nearest
from polyrank.errors import PolyrankError, RunError
from polyrank.files import file_sha256, read_json, write_json, writing
from polyrank.fusion.formula import Formula
from polyrank.fusion.fusion import Fusion
from polyrank.fusion.lambdarank import LambdaRankFusion
from polyrank.fusion.listwise import ListwiseFusion
from polyrank.fusion.monotone import MonotoneFusion
from polyrank.fusion.segments import Segmented

FORMAT = 1
FILE, ARRAYS = "fusion.json", "fusion.safetensors"
KINDS: tuple[type[Fusion], ...] = (Formula, Segmented, LambdaRankFusion, MonotoneFusion, ListwiseFusion)
FUSIONS: Mapping[str, type[Fusion]] = MappingProxyType({kind.kind: kind for kind in KINDS})


def save_fusion(fusion: Fusion, directory: Path) -> None:
    """Write a fusion into a directory, over an earlier one.

    Raises:
        StorageError: it cannot be written.
    """
    arrays, digest = fusion.arrays(), None
    if arrays:
        with writing(directory / ARRAYS) as temporary:
            temporary.write_bytes(save(dict(arrays)))
        digest = file_sha256(directory / ARRAYS)
    else:
        (directory / ARRAYS).unlink(missing_ok=True)
    write_json(directory / FILE, {"format": FORMAT, "kind": fusion.kind, "arrays_sha256": digest, **fusion.document()})


def load_fusion(directory: Path) -> Fusion:
    """Read what `save_fusion` wrote.

    Raises:
        RunError: it is missing, damaged, or of another format.
    """
    document = read_json(directory / FILE)
    kind = FUSIONS.get(document.get("kind", ""))
    if document.get("format") != FORMAT or kind is None:
        raise RunError(
            f"a fusion must be of format {FORMAT} and of a known kind",
            received=f"{directory / FILE}: format {document.get('format')!r}, kind {document.get('kind')!r}",
            mend=nearest(str(document.get("kind")), FUSIONS),
        )
    try:
        arrays = {}
        if document["arrays_sha256"] is not None:
            if file_sha256(directory / ARRAYS) != document["arrays_sha256"]:
                raise ValueError(f"{ARRAYS} is not the file that was saved with it")
            arrays = load_file(directory / ARRAYS)
        return kind.restore(document, arrays)
    except (KeyError, TypeError, ValueError, OSError, SafetensorError, PolyrankError) as error:
        raise RunError(
            "a fusion must be whole", received=f"{directory / FILE}: {error}", mend="restore it, or make it again"
        ) from error
