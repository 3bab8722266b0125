"""Runs the steps of a distributed build in this process, as awkwardly as Beam may.

Work comes in any order, any of it is done twice as by a worker that was thought lost,
and what goes from worker to worker is pickled.
"""

import pickle
import random

from bert_jax.contrib.beam import beam_engine


class Runner:
    """A runner that shuffles by a seed."""

    def __init__(self, seed=0):
        self._random = random.Random(seed)

    def tokenize(self, steps):
        """Runs the steps up to the report."""
        found = self._spread(steps.parts, range(len(steps.sources)))
        read = self._spread(steps.chunks, only(found, beam_engine.SourcePart))
        chunks = only(read, beam_engine.NamedChunk)
        tokenized = self._spread(steps.tokenize, chunks)
        buckets = self._group(only(tokenized, tuple)).values()
        repeats = self._spread(beam_engine.repeats, buckets)
        blocks = self._group(repeats).items()
        noted = self._spread(lambda item: [steps.note_repeats(*item)], blocks)
        several = only([*found, *read, *tokenized, *noted], beam_engine.BuildReport)
        self._random.shuffle(several)
        half = len(several) // 2
        merged = beam_engine.merge([beam_engine.merge(several[:half]), *several[half:]])
        steps.note_report(merged)

    def write(self, steps, count):
        """Writes the shards."""
        self._spread(lambda number: [steps.write(number)], range(count))

    def _spread(self, step, items):
        """Returns all that a step yields for the items, some of which come twice."""
        items = [pickle.loads(pickle.dumps(item)) for item in items]
        self._random.shuffle(items)
        for item in items[: len(items) // 4 + 1]:
            list(step(item))
        return [result for item in items for result in step(item)]

    def _group(self, pairs):
        """Returns the values of each key, in any order."""
        self._random.shuffle(pairs)
        grouped = {}
        for key, value in pairs:
            grouped.setdefault(key, []).append(value)
        return grouped


def only(items, kind):
    """Returns the items of one kind; reports are no tuples."""
    return [item for item in items if isinstance(item, kind)]
