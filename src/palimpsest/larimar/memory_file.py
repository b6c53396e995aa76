"""Files of memories: safetensors with a checksum, so that nothing is unpickled and a flipped bit is noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from palimpsest.files import atomic_path

FORMAT = "palimpsest matrix memory 1"


class MemoryFileError(Exception):
    """A file holds no memory, a damaged one, or one that does not belong here."""


def write_file(path: Path | str, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata in place of what was there, whole or not at all."""
    metadata = {"format": FORMAT, **metadata}
    metadata["sha256"] = _checksum(tensors, metadata)
    with atomic_path(path) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def read_file(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata that :func:`write_file` wrote, checked against their checksum.

    Raises:
        FileNotFoundError: there is no such file.
        MemoryFileError: it is damaged, or of another kind.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise MemoryFileError(f"{path}: damaged, or no memory: {error}") from error
    if metadata.get("format") != FORMAT:
        raise MemoryFileError(f"{path}: expected a {FORMAT!r} file, its format is {metadata.get('format')!r}")
    if metadata.pop("sha256", None) != _checksum(tensors, metadata):
        raise MemoryFileError(f"{path}: damaged: its contents do not match their checksum")
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(sorted(metadata.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name}{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().numpy().data)
    return digest.hexdigest()
