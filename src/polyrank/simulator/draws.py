"""Random numbers that are functions of what they are for, so that two policies meet the same luck.

A stream of random numbers gives two policies different luck as soon as one of them draws more than the other. Here each
draw is a hash of its key (seed, session, request, what for), by SplitMix64's finaliser (Steele, Lea, Flood, "Fast
Splittable Pseudorandom Number Generators", OOPSLA 2014): common random numbers, in whatever order they are asked for.
"""

import numpy as np

from polyrank.metrics.checks import Rows

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_FIRST, _SECOND = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)


def keys(key: Rows | int, part: Rows | int) -> Rows:
    """The key of each `part` of each `key`, broadcast as arrays are; integers ≥ 0 → uint64, every bit random."""
    with np.errstate(over="ignore"):  # arithmetic is modulo 2⁶⁴
        # A golden ratio for each part: the finaliser alone would map 0 to 0.
        mixed = np.asarray(key, np.uint64) + (np.asarray(part, np.uint64) + np.uint64(1)) * _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
    return np.asarray(mixed ^ (mixed >> np.uint64(31)))


def uniforms(key: Rows, count: int) -> Rows:
    """`[...]` keys → `[..., count]` float32 in (0, 1): the middles of 2²³ equal parts."""
    bits = keys(key[..., None], np.arange(count)) >> np.uint64(41)
    return np.asarray((bits.astype(np.float32) + np.float32(0.5)) * np.float32(2**-23))


def normals(key: Rows, count: int) -> Rows:
    """`[...]` keys → `[..., count]` float32, standard normal (Box and Muller 1958)."""
    pairs = (count + 1) // 2
    flat = uniforms(key, 2 * pairs)
    radius, angle = np.sqrt(-2 * np.log(flat[..., :pairs])), np.float32(2 * np.pi) * flat[..., pairs:]
    return np.concatenate([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)[..., :count]


def below(key: Rows, count: int) -> Rows:
    """`[...]` keys → `[...]` int64 in [0, count), for a count under 2³²; of a key's upper half."""
    return np.asarray(((key >> np.uint64(32)) * np.uint64(count)) >> np.uint64(32), np.int64)
