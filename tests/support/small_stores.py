"""Documents whose tokens encode their position, and the rows of their stores."""

import numpy as np

from bert_jax.data.pretraining import instances

CLS, SEP = 1, 2
# The tens digit is the document, the last digit the position in it.
DOCUMENTS = [
    [[11, 12], [13, 14, 15], [16]],
    [[21, 22, 23, 24]],
    [[31], [32, 33], [34, 35, 36], [37, 38]],
]
WORD_STARTS = [
    [[1, 0], [1, 1, 0], [1]],
    [[1, 1, 0, 1]],
    [[1], [1, 1], [1, 0, 0], [1, 0]],
]


def open_instances(opened, objective, length, *, short=0.0, seed=0):
    """The rows of an open store."""
    return instances.Instances(
        opened,
        objective=objective,
        max_seq_length=length,
        short_seq_prob=short,
        seed=seed,
        special_ids=(CLS, SEP),
    )


def random_documents(seed, count, longest=12, sentences=15):
    """Documents whose tokens are all different, from 10 on."""
    rng = np.random.default_rng(seed)
    token = iter(range(10, 60_000))
    return [
        [
            [next(token) for _ in range(rng.integers(1, longest))]
            for _ in range(rng.integers(1, sentences))
        ]
        for _ in range(count)
    ]


def places(documents):
    """Document, sentence and the sentence's length of each token."""
    return {
        token: (number, line, len(sentence))
        for number, document in enumerate(documents)
        for line, sentence in enumerate(document)
        for token in sentence
    }


def parts(batch, row):
    """The tokens of a row's parts: all between the special tokens."""
    ids = batch["input_ids"][row][batch["segment_ids"][row] > 0].tolist()
    assert ids[0] == CLS and ids[-1] == SEP
    ends = [i for i, token in enumerate(ids) if token == SEP]
    return [ids[a + 1 : b] for a, b in zip([0, *ends[:-1]], ends, strict=True)]


def epoch_of(made, epoch):
    """All rows of an epoch."""
    return made.batch_at(epoch, made.num_instances)


def epochs_of(made, count):
    """All rows of the first epochs, in one batch."""
    return made.batch_at(0, count * made.num_instances)
