"""Where shards end, against the rule read aloud."""

import numpy as np

from bert_jax.data.corpus import store


def by_rule(tokens, shard_tokens):
    """Documents up to the end of each full shard."""
    ends, held = [], 0
    for number, count in enumerate(tokens, 1):
        held += count
        if held >= shard_tokens:
            ends.append(number)
            held = 0
    return ends


def test_shards_end_where_the_rule_says_however_documents_come():
    draw = np.random.default_rng(3)
    for shard_tokens in (1, 7, 40, 1000):
        tokens = draw.integers(1, 60, 97)
        cutter, ends, done = store.Cutter(shard_tokens), [], 0
        for part in np.split(tokens, sorted(draw.integers(0, 97, 9))):
            ends += [done + end for end in cutter.ends(part)]
            done += len(part)
        assert ends == by_rule(tokens.tolist(), shard_tokens)
