"""Which data a run has seen: a fingerprint of their bytes, for the record."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from hpsearch.objective import Data

#: bytes of all tensors together up to which every one of them is read
WHOLE = 1 << 30
#: of larger data, a tensor of at most so many bytes is read all the same ...
SMALL = 1 << 26
#: ... and of any other one so many rows, fewer where they are more than ``SMALL`` together: a mapped file may lie on a
#: slow disk
ROWS, FEWEST = 4096, 64
#: hexadecimal digits, of a sha256's 64
DIGITS = 16
#: bytes copied at a time
_CHUNK = 1 << 24


def fingerprint(data: Data) -> str:
    """16 hexadecimal digits of a sha256 over names, shapes, types and bytes of the tensors of ``data``.

    The test part is among them (nothing is evaluated on it); ``transform`` is code, and not. The device does not
    matter. Data above 1 GiB are told by a sample: tensors of at most 64 MiB (targets, as a rule) whole, of any other
    one its shape, its type and 4,096 rows (of large rows fewer, 64 MiB in all, but 64 rows), always the same ones; a
    change of a few other rows goes unseen.

    Returns:
        "" where a tensor has no bytes of its own in rows, as a sparse one.
    """
    names = ("inputs", "targets", "test_inputs", "test_targets")
    tensors = {name: tensor.detach() for name in names if (tensor := getattr(data, name)) is not None}
    if any(tensor.layout is not torch.strided or tensor.is_quantized for tensor in tensors.values()):
        return ""
    large = sum(map(_bytes, tensors.values())) > WHOLE
    digest = hashlib.sha256()
    for name, tensor in tensors.items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        _add(digest, _sample(tensor) if large and _bytes(tensor) > SMALL else tensor)
    return digest.hexdigest()[:DIGITS]


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


def _sample(tensor: Tensor) -> Tensor:
    """Rows drawn evenly from all, the first and the last one among them; drawn, since data may have a period."""
    count = len(tensor)
    wanted = max(FEWEST, min(ROWS, SMALL * count // _bytes(tensor)))
    drawn = torch.randint(count, (wanted - 2,), generator=torch.Generator().manual_seed(0))
    rows = torch.cat([drawn, torch.tensor([0, count - 1])]).sort().values
    return tensor[rows.to(tensor.device)]


def _add(digest: hashlib._Hash, tensor: Tensor) -> None:
    """The bytes of a tensor, row by row as they would lie next to each other."""
    if not tensor.numel():
        return
    tensor = tensor if tensor.dim() else tensor.reshape(1)
    for rows in torch.split(tensor, max(1, _CHUNK * len(tensor) // _bytes(tensor))):
        plain = rows.resolve_conj().resolve_neg().contiguous().cpu()
        digest.update(plain.reshape(-1).view(torch.uint8).numpy().data)
