"""Philox-4x32-10: random numbers that are a function of (seed, position), with no state to carry along.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", §3.3. A mask for dropout can be drawn anywhere, in
any order, on any device, and again in the backward pass instead of being kept.
"""

from __future__ import annotations

import numpy as np

from minifcn.array import Array
from minifcn.threads import parallel, runs

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)  # added to the key after every round
ROUNDS = 10
CHUNK = 1 << 16  # words drawn at a time, so that the rounds find them in the cache
WORD = 0xFFFFFFFF


def philox4x32(counter: tuple[int, int, int, int], key: tuple[int, int]) -> tuple[int, int, int, int]:
    """Four random 32-bit words from a 128-bit counter and a 64-bit key, in Python integers: the definition.

    >>> [hex(word) for word in philox4x32((0, 0, 0, 0), (0, 0))]
    ['0x6627e8d5', '0xe169c58d', '0xbc57ac4c', '0x9b00dbd8']
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        a, b = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (b >> 32) ^ c1 ^ k0, b & WORD, (a >> 32) ^ c3 ^ k1, a & WORD
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    return c0, c1, c2, c3


def philox_word(seed: int, position: int) -> int:
    """Word number `position` of the stream of `seed`."""
    block = position // 4
    return philox4x32((block & WORD, block >> 32, 0, 0), (seed & WORD, seed >> 32 & WORD))[position % 4]


def philox_words(seed: int, start: int, count: int) -> Array:
    """Words start … start + count of the stream of `seed`, as uint32: philox_word for all of them at once."""
    words = np.empty(count, np.uint32)

    def draw(part: slice) -> None:
        words[part] = _words(seed, start + part.start, part.stop - part.start)

    parallel(draw, runs(count, CHUNK), alone=count <= CHUNK)
    return words


def _words(seed: int, start: int, count: int) -> Array:
    first, last = start // 4, -(-(start + count) // 4)
    blocks = np.arange(first, last, dtype=np.uint64)
    c0, c1 = blocks & np.uint64(WORD), blocks >> np.uint64(32)
    c2 = np.zeros_like(c0)
    c3 = np.zeros_like(c0)
    k0, k1 = seed & WORD, seed >> 32 & WORD
    low, shift = np.uint64(WORD), np.uint64(32)
    for _ in range(ROUNDS):
        a, b = c0 * np.uint64(MULTIPLIERS[0]), c2 * np.uint64(MULTIPLIERS[1])
        c0, c1, c2, c3 = (b >> shift) ^ c1 ^ np.uint64(k0), b & low, (a >> shift) ^ c3 ^ np.uint64(k1), a & low
        k0, k1 = (k0 + WEYL[0]) & WORD, (k1 + WEYL[1]) & WORD
    words = np.stack([c0, c1, c2, c3], axis=1).astype(np.uint32).reshape(-1)
    return words[start - 4 * first : start - 4 * first + count]
