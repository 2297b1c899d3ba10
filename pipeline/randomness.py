"""Seeds derived from names, so that each random stream is independent of every other and of the order of work."""

import hashlib

import torch


def derive_seed(*parts: object) -> int:
    """Return a 63-bit seed that depends on each of `parts` (compared by their `str`) and on their order."""
    text = "\x1f".join(str(part) for part in parts)
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "little") >> 1


def generator(*parts: object) -> torch.Generator:
    """Return a CPU generator seeded by `derive_seed(*parts)`; drawn on the CPU so that every device sees the same."""
    return torch.Generator().manual_seed(derive_seed(*parts))
