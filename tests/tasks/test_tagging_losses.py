"""Tagging: losses, the CRF against all paths, recipes, padding."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from small_tags import (
    LABELS,
    SENTENCES,
    example,
    loss_of,
    on_device,
    params_of,
    predicted,
    tagger,
    whole,
)

from bert_jax import errors
from bert_jax.metrics import tag_schemes
from bert_jax.tasks import losses


def test_a_crf_without_transitions_is_a_softmax_a_token():
    """So the losses of both heads have one scale. Plain tags: nothing is forbidden."""
    labels = ("O", "X", "Y")
    sentences = [
        example(x.text, " ".join("XYO"[len(t) % 3] for t in x.text.split()))
        for x in SENTENCES
    ]
    linear = tagger(labels, "plain")
    chain = tagger(labels, "plain", head={"crf": True})
    params = params_of(chain)
    batch = whole(linear.table(sentences))
    _, metrics = jax.eval_shape(linear.losses, params, batch, jax.random.key(0))
    one, two = (loss_of(task, params, batch) for task in (linear, chain))
    assert one == pytest.approx(two, rel=1e-5)
    assert float(linear.weights(batch)["tag"]) == 38.0
    assert chain.weights(batch) == linear.weights(batch)
    assert list(metrics) == ["accuracy"]
    made = [jax.jit(task.predict)(params, batch) for task in (linear, chain)]
    weights = batch["token_weights"]
    for name in ("tags", "probabilities"):
        np.testing.assert_allclose(
            made[0][name] * weights, made[1][name] * weights, rtol=1e-4
        )


def _paths(logits, transitions, starts, ends, moves):
    """Returns the probability of each allowed path of tags, by listing them all."""
    length, classes = logits.shape
    scores = {}
    for path in itertools.product(range(classes), repeat=length):
        allowed = moves[1][path[0]] and moves[2][path[-1]]
        allowed &= all(moves[0][a, b] for a, b in itertools.pairwise(path))
        if allowed:
            total = starts[path[0]] + ends[path[-1]]
            total += sum(logits[t, tag] for t, tag in enumerate(path))
            total += sum(transitions[a, b] for a, b in itertools.pairwise(path))
            scores[path] = total
    whole_ = np.logaddexp.reduce(list(scores.values()))
    return {path: np.exp(score - whole_) for path, score in scores.items()}


def test_the_crf_over_first_pieces_is_that_of_all_paths():
    """Loss, best path and probabilities of one row of two, by listing them."""
    sentences = [
        example("Bobby met Parisian Rome", "B-PER O B-LOC I-LOC"),
        SENTENCES[0],
    ]
    task = tagger(head={"crf": True})
    params = params_of(task)
    rng = np.random.default_rng(8)
    params["crf"] = {
        name: rng.normal(size=value.shape).astype(np.float32)
        for name, value in sorted(params["crf"].items())
    }
    table = task.table(sentences)
    batch = whole(table)
    apply = jax.jit(functools.partial(task.model.apply, dropout_key=None))
    outputs = apply(params, batch)
    logits = np.asarray(outputs["logits"], np.float64)[0, [1, 3, 4, 6]]
    of_paths = _paths(
        logits,
        *(
            np.asarray(params["crf"][name])
            for name in ("transitions", "starts", "ends")
        ),
        tag_schemes.allowed(LABELS, "BIO"),
    )
    gold = tuple(LABELS.index(tag) for tag in sentences[0].tags)
    alone = batch | {
        "token_weights": batch["token_weights"] * jnp.array([[1.0], [0.0]])
    }
    found = loss_of(task, params, alone)
    assert found == pytest.approx(-np.log(of_paths[gold]), rel=1e-4)
    made = jax.jit(task.predict)(params, batch)
    best = max(of_paths, key=lambda path: of_paths[path])
    assert tuple(np.asarray(made["tags"])[0, :4]) == best
    odds = [
        sum(p for path, p in of_paths.items() if path[t] == best[t]) for t in range(4)
    ]
    np.testing.assert_allclose(made["probabilities"][0, :4], odds, rtol=1e-4)


def test_tags_are_free_unless_they_are_constrained():
    free, bound = tagger(), tagger(constrained=True)
    params = params_of(free)
    broken = 0
    for task in (free, bound):
        found = predicted(task, params, SENTENCES)
        breaks = [tag_schemes.breaks(made["tags"], "BIO") for made in found]
        if task is free:
            broken = sum(map(len, breaks))
        assert not (task is bound and any(breaks))
    assert broken > 0


def test_padding_and_other_rows_change_nothing():
    task = tagger(head={"crf": True, "recurrent_size": 5})
    params = params_of(task)
    table = task.table(SENTENCES)
    short = on_device(table.batch(np.array([1]), 1, int(table.lengths[1])))
    long = on_device(table.batch(np.array([1, 3]), 5, 21))
    one, other = (jax.jit(task.predict)(params, batch) for batch in (short, long))
    np.testing.assert_array_equal(one["tags"][0, :4], other["tags"][0, :4])
    np.testing.assert_allclose(
        one["probabilities"][0, :4], other["probabilities"][0, :4], rtol=1e-5
    )


def test_recipes_change_the_loss():
    head = {"dropout": 0.3}
    task = tagger(head=head, recipe=losses.Recipe(focal_gamma=2.0, r_drop=0.5))
    params, batch = params_of(task), whole(task.table(SENTENCES))
    usual = loss_of(tagger(head=head), params, batch, 1)
    assert abs(loss_of(task, params, batch, 1) - usual) > 0.5


def test_class_weights_divide_by_themselves():
    """Where all labels are O, its weight changes no mean."""
    weights = (3.0, 1.0, 1.0, 2.0, 2.0)
    task = tagger(recipe=losses.Recipe(class_weights=weights))
    usual = tagger()
    batch = whole(task.table(SENTENCES[-1:]))
    assert float(task.weights(batch)["tag"]) == 6.0
    params = params_of(task)
    means = [
        loss_of(one, params, batch) / float(one.weights(batch)["tag"])
        for one in (task, usual)
    ]
    assert means[0] == pytest.approx(means[1], rel=1e-5)


def test_a_crf_refuses_losses_of_single_tags():
    with pytest.raises(errors.InputError, match="recipe.label_smoothing"):
        tagger(head={"crf": True}, recipe=losses.Recipe(label_smoothing=0.1))
    tagger(head={"crf": True}, recipe=losses.Recipe(r_drop=0.5))
