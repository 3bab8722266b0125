"""Counter-based random numbers, and random permutations without a table.

`fold_in` turns a key and a counter into 64 well mixed bits (the finalizer of
splitmix64, Steele et al. 2014), `permute` shuffles range(n) one index at a time (a
Feistel network, Luby and Rackoff 1988, over two digits of mixed radix as in Black and
Rogaway 2002). Neither has state, so any value of any epoch can be computed directly.
The values are part of the format of a run and never change between versions.
"""

import operator
from typing import NamedTuple

import numpy as np

GOLDEN = np.uint64(0x9E3779B97F4A7C15)  # 2**64 / golden ratio: splitmix64's step
MULTIPLIERS = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))
ROUNDS = 12  # with 8, the 120 orders of five things were not yet equally likely
WORD = 2**64
Integers = int | np.integer | np.ndarray


def mix(bits: Integers) -> np.ndarray:
    """Returns uint64 `bits` scrambled one to one: splitmix64's finalizer."""
    bits = np.array(bits, np.uint64)
    # In-place: a product of two scalars would warn that it wraps.
    bits ^= bits >> np.uint64(30)
    bits *= MULTIPLIERS[0]
    bits ^= bits >> np.uint64(27)
    bits *= MULTIPLIERS[1]
    bits ^= bits >> np.uint64(31)
    return bits


def key_of(seed: int) -> np.ndarray:
    """Returns the key of a run's seed, any integer."""
    return fold_in(GOLDEN, np.uint64(operator.index(seed) % WORD))


def fold_in(key: Integers, counter: Integers) -> np.ndarray:
    """Returns 64 random bits for each (key, counter); they can serve as a key.

    Args:
      key: uint64, any shape.
      counter: integers from 0, a shape that broadcasts with the key's.
    """
    counter = np.array(counter).astype(np.uint64)
    counter += GOLDEN
    return mix(np.asarray(key, np.uint64) ^ mix(counter))


def uniform(bits: Integers) -> np.ndarray:
    """Returns float64 in [0, 1) from the upper 53 of 64 random bits."""
    return np.asarray((np.asarray(bits, np.uint64) >> np.uint64(11)) * 2.0**-53)


def below(bits: Integers, bound: Integers) -> np.ndarray:
    """Returns int64 in [0, bound) from random bits, with a bias of bound / 2**64."""
    bound = np.asarray(bound).astype(np.uint64)
    return np.asarray(np.asarray(bits, np.uint64) % bound).astype(np.int64)


def permute(index: Integers, n: Integers, key: Integers) -> np.ndarray:
    """Returns the position of each index in a random permutation of range(n).

    An exact bijection of [0, n) for every n below 2**62 and every key. An index that
    the network maps beyond n follows its cycle until it is inside again; the domain
    exceeds n by less than its square root, so few do.

    >>> permute(np.arange(7), 7, key_of(0)).tolist()
    [2, 0, 4, 1, 6, 3, 5]

    Args:
      index: integers in [0, n), any shape.
      n: the size of the range; one, or one per index.
      key: uint64; one, or one per index.

    Returns:
      int64 in [0, n), of the shape of the index.
    """
    index, sizes, keys = np.broadcast_arrays(index, n, np.asarray(key, np.uint64))
    sizes = np.ascontiguousarray(sizes.ravel(), np.uint64)
    network = _Network.of(sizes, keys.ravel())
    value = network.apply(index.ravel().astype(np.uint64))
    outside = np.flatnonzero(value >= sizes)
    while outside.size:
        value[outside] = network.some(outside).apply(value[outside])
        outside = outside[value[outside] >= sizes[outside]]
    return value.astype(np.int64).reshape(index.shape)


class _Network(NamedTuple):
    """A Feistel network over [0, r * ceil(n / r)) for each value, r = ceil(sqrt(n))."""

    radices: tuple[np.ndarray, np.ndarray]
    keys: np.ndarray

    @classmethod
    def of(cls, sizes: np.ndarray, keys: np.ndarray) -> "_Network":
        """Returns networks over ranges of these sizes, with these keys."""
        root = _roots(sizes)
        return cls((root, (sizes + root - np.uint64(1)) // root), keys)

    def some(self, members: np.ndarray) -> "_Network":
        """Returns the networks of some of the values."""
        first, second = self.radices
        return _Network((first[members], second[members]), self.keys[members])

    def apply(self, value: np.ndarray) -> np.ndarray:
        """Returns the values after all rounds."""
        halves = list(np.divmod(value, self.radices[1]))
        round_keys = fold_in(self.keys, np.arange(ROUNDS)[:, None])
        for number in range(ROUNDS):
            this, other = number % 2, 1 - number % 2
            bits = mix(halves[other] ^ round_keys[number])
            # One bit less, so that the sum cannot wrap and stays one to one.
            halves[this] = (halves[this] + (bits >> np.uint64(1))) % self.radices[this]
        return halves[0] * self.radices[1] + halves[1]


def _roots(sizes: np.ndarray) -> np.ndarray:
    """Returns the least r with r * r >= n, and at least 1, for uint64 n below 2**62.

    The float's root may be one off, as floats have 53 digits.

    >>> _roots(np.array([1, 2, 4, 5, 9, 10], np.uint64)).tolist()
    [1, 2, 2, 3, 3, 4]
    """
    one = np.uint64(1)
    most = np.maximum(sizes, one) - one
    root = np.sqrt(most).astype(np.uint64)
    root -= (root * root > most).astype(np.uint64)
    root += ((root + one) * (root + one) <= most).astype(np.uint64)
    return root + one
