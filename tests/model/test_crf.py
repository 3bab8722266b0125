"""The CRF beside a sum and a maximum over all paths, in float64."""

import itertools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import test_util

from bert_jax.model import crf

log_partition, path_score, negative_log_likelihood, viterbi = map(
    jax.jit,
    (crf.log_partition, crf.path_score, crf.negative_log_likelihood, crf.viterbi),
)

# Rows with gaps in the mask, at the ends and inside, and one without any position.
MASK = np.array(
    [
        [1, 1, 1, 1, 1],
        [1, 1, 1, 0, 0],
        [0, 1, 0, 1, 1],
        [0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0],
        [1, 0, 0, 0, 1],
    ],
    bool,
)


def drawn(classes, seed=3, scale=1.5):
    """Returns logits [6, 5, C], tags [6, 5] and the scores of moves."""
    rng = np.random.default_rng(seed)
    sizes = [(6, 5, classes), (classes, classes), (classes,), (classes,)]
    values = [jnp.asarray(rng.normal(0, scale, s), jnp.float32) for s in sizes]
    tags = jnp.asarray(rng.integers(0, classes, (6, 5)), jnp.int32)
    return values[0], tags, crf.PathScores(*values[1:])


def score(logits, path, scores):
    """Returns the score of one path over rows of logits, in float64."""
    transitions, starts, ends = (np.asarray(x, np.float64) for x in scores)
    if not path:
        return 0.0
    total = starts[path[0]] + ends[path[-1]]
    total += sum(float(row[tag]) for row, tag in zip(logits, path, strict=True))
    return total + sum(transitions[a, b] for a, b in itertools.pairwise(path))


def all_paths(logits, scores):
    """Returns {path: score} over every path through rows of logits."""
    classes = logits.shape[1]
    paths = itertools.product(range(classes), repeat=len(logits))
    return {path: score(logits, path, scores) for path in paths}


def rows(logits):
    return [np.asarray(x, np.float64)[m] for x, m in zip(logits, MASK, strict=True)]


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_the_partition_is_the_sum_over_all_paths(classes):
    logits, _, scores = drawn(classes)
    found = log_partition(logits, jnp.asarray(MASK), scores)
    expected = [
        math.log(math.fsum(math.exp(x) for x in all_paths(row, scores).values()))
        for row in rows(logits)
    ]
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-5)


@pytest.mark.parametrize("classes", [1, 2, 4])
def test_the_score_of_a_path_is_added_up(classes):
    logits, tags, scores = drawn(classes)
    wild = jnp.where(jnp.asarray(MASK), tags, -100)
    found = path_score(logits, wild, jnp.asarray(MASK), scores)
    paths = [tuple(t[m].tolist()) for t, m in zip(np.asarray(tags), MASK, strict=True)]
    expected = [score(r, p, scores) for r, p in zip(rows(logits), paths, strict=True)]
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-5)
    likelihood = negative_log_likelihood(logits, wild, jnp.asarray(MASK), scores)
    whole = log_partition(logits, jnp.asarray(MASK), scores)
    np.testing.assert_allclose(likelihood, whole - found, atol=1e-5)
    assert likelihood[4] == 0.0


def test_probabilities_of_all_paths_add_up_to_one():
    logits, _, scores = drawn(3)
    paths = list(itertools.product(range(3), repeat=5))
    tags = jnp.asarray(paths, jnp.int32)
    many = jnp.broadcast_to(logits[:1], (len(paths), 5, 3))
    losses = negative_log_likelihood(many, tags, jnp.ones(tags.shape, bool), scores)
    np.testing.assert_allclose(float(jnp.sum(jnp.exp(-losses))), 1.0, rtol=1e-5)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("classes", [1, 2, 4])
def test_viterbi_finds_the_best_of_all_paths(classes, seed):
    logits, _, scores = drawn(classes, seed)
    found = viterbi(logits, jnp.asarray(MASK), scores)
    assert found.dtype == jnp.int32 and found.shape == MASK.shape
    for row, path, mask in zip(rows(logits), np.asarray(found), MASK, strict=True):
        scored = all_paths(row, scores)
        assert tuple(path[mask].tolist()) == max(scored, key=lambda p: scored[p])
        assert not path[~mask].any()


def forbidding():
    """Of O, B, I: no path starts with I, goes from O to I, or ends in B."""
    return crf.Allowed(
        transitions=jnp.array([[1, 1, 0], [1, 1, 1], [1, 1, 1]], bool),
        starts=jnp.array([1, 1, 0], bool),
        ends=jnp.array([1, 0, 1], bool),
    )


def test_what_is_forbidden_is_never_decoded_and_has_no_share():
    allowed = forbidding()
    logits, _, scores = drawn(3, scale=20.0)
    kept = crf.forbid(scores, allowed)
    found = np.asarray(viterbi(logits, jnp.asarray(MASK), kept))
    free = np.asarray(viterbi(logits, jnp.asarray(MASK), scores))
    may = jax.tree.map(np.asarray, allowed)
    broken = []
    for row, path, other, mask in zip(rows(logits), found, free, MASK, strict=True):
        path, other = tuple(path[mask].tolist()), tuple(other[mask].tolist())
        legal = {p: s for p, s in all_paths(row, scores).items() if _legal(p, may)}
        assert path == max(legal, key=lambda p: legal[p])
        broken.append(not _legal(other, may))
    assert any(broken)
    partition = log_partition(logits / 20, jnp.asarray(MASK), kept)
    for row, total in zip(rows(logits / 20), np.asarray(partition), strict=True):
        scored = all_paths(row, scores)
        exact = math.fsum(math.exp(s) for p, s in scored.items() if _legal(p, may))
        np.testing.assert_allclose(total, math.log(exact), rtol=2e-6, atol=1e-5)


def _legal(path, may):
    if not path:
        return True
    moves = all(may.transitions[a, b] for a, b in itertools.pairwise(path))
    return bool(moves and may.starts[path[0]] and may.ends[path[-1]])


def test_positions_outside_the_mask_weigh_nothing():
    logits, tags, scores = drawn(4)
    mask = jnp.asarray(MASK)
    other = jnp.where(mask[..., None], logits, 1e30)
    wild = jnp.where(mask, tags, 3 - tags)

    def everything(logits, tags):
        value = negative_log_likelihood(logits, tags, mask, scores)
        return value, viterbi(logits, mask, scores)

    one, two = everything(logits, tags), everything(other, wild)
    chex.assert_trees_all_equal(one, two)

    def loss(logits, scores):
        return jnp.sum(negative_log_likelihood(logits, tags, mask, scores))

    for_logits, for_scores = jax.jit(jax.grad(loss, argnums=(0, 1)))(other, scores)
    assert not np.asarray(for_logits)[~MASK].any()
    assert np.abs(np.asarray(for_logits)[MASK]).min() > 0
    for gradient in for_scores:
        assert np.isfinite(gradient).all() and np.abs(gradient).max() > 0


def test_gradients_are_finite_differences():
    logits, tags, scores = drawn(3, scale=0.7)
    kept = crf.forbid(scores, forbidding())._replace(starts=scores.starts)

    def loss(*arguments):  # `check_grads` gives numpy arrays
        logits, starts, ends = map(jnp.asarray, arguments)
        moves = kept._replace(starts=starts, ends=ends)
        mask = jnp.asarray(MASK)
        paths = path_score(logits, 0 * tags, mask, moves)
        return jnp.mean(log_partition(logits, mask, moves) - paths)

    arguments = (logits, scores.starts, scores.ends)
    test_util.check_grads(
        jax.jit(loss), arguments, 1, modes=["rev"], atol=5e-3, rtol=5e-3
    )

    def of_transitions(transitions):
        moves = scores._replace(transitions=jnp.asarray(transitions))
        losses = negative_log_likelihood(logits, tags, jnp.asarray(MASK), moves)
        return jnp.mean(losses)

    moves = (scores.transitions,)
    test_util.check_grads(
        jax.jit(of_transitions), moves, 1, ["rev"], atol=5e-3, rtol=5e-3
    )


def test_fresh_parameters_are_a_softmax_of_each_token():
    logits, tags, _ = drawn(4)
    scores = crf.Transitions(4).apply(
        {"params": jax.tree.map(jnp.zeros_like, drawn(4)[2])._asdict()}
    )
    found = negative_log_likelihood(logits, tags, jnp.asarray(MASK), scores)
    log_probs = np.asarray(jax.nn.log_softmax(logits, axis=-1))
    picked = np.take_along_axis(log_probs, np.asarray(tags)[..., None], 2)[..., 0]
    np.testing.assert_allclose(found, -(picked * MASK).sum(1), atol=1e-5)
