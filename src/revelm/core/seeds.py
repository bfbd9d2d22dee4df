"""Seeds for independent random streams, derived by name. The same in every process, on every platform."""

from hashlib import blake2b


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from the names and numbers in ``parts``, e.g. ``derive_seed(seed, "rollout", step)``.

    Different parts give unrelated seeds, and ``1`` differs from ``"1"``. Raises TypeError for other types.
    """
    digest = blake2b(digest_size=8)
    for part in parts:
        if isinstance(part, bool) or not isinstance(part, int | str):
            raise TypeError(f"seed parts are int or str, got {type(part).__name__} ({part!r})")
        kind = b"i" if isinstance(part, int) else b"s"
        data = str(part).encode()
        digest.update(kind + len(data).to_bytes(8, "little") + data)
    return int.from_bytes(digest.digest(), "little") & (2**63 - 1)
