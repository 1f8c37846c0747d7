"""Named random streams: the one source of randomness."""

import hashlib

import numpy as np


def stream(seed: int, *name: str | int) -> np.random.Generator:
    """Return the generator that belongs to a seed and a name, whatever was drawn elsewhere and in whatever order.

    The name is a path such as ``("fading", replication, device)``. Two names give independent streams, so adding a
    device, a policy or a metric changes no other stream, and two policies that ask for the same name meet the same
    world. The name is hashed (BLAKE2b, 128 bits) into the entropy of a numpy SeedSequence.
    """
    digest = hashlib.blake2b(repr(name).encode(), digest_size=16).digest()
    return np.random.default_rng([seed, int.from_bytes(digest, "little")])
