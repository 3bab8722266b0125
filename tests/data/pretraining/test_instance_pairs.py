"""Pairs of parts: where the second comes from, how often, and what its label says."""

import numpy as np
import pytest
import small_stores

from bert_jax import errors


def test_pairs_by_eye(write_store):
    # Seven places: the chunks are 11..16, 21..24 and 31..38.
    opened = write_store(small_stores.DOCUMENTS, word_starts=small_stores.WORD_STARTS)
    made = small_stores.open_instances(opened, "nsp", 10, seed=1)
    batch = made.batch_at_in_order(0, 4)
    assert batch["input_ids"].tolist() == [
        [1, 11, 12, 2, 21, 22, 23, 24, 2, 0],
        [1, 21, 22, 23, 24, 2, 37, 38, 2, 0],
        [1, 31, 32, 33, 2, 34, 35, 36, 37, 2],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["token_type_ids"].tolist() == [
        [0, 0, 0, 0, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["word_start"].astype(int).tolist() == [
        [0, 1, 0, 0, 1, 1, 0, 1, 0, 0],
        [0, 1, 1, 0, 1, 0, 1, 0, 0, 0],
        [0, 1, 1, 1, 0, 1, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["next_sentence_labels"].tolist() == [[1], [1], [0], [0]]
    assert batch["next_sentence_weights"].tolist() == [[1], [1], [1], [0]]
    assert batch["cls_positions"].tolist() == [[0], [0], [0], [0]]


def test_ordered_pairs_by_eye(write_store):
    made = small_stores.open_instances(
        write_store([*small_stores.DOCUMENTS, [[41]]]), "sop", 10, seed=1
    )
    batch = made.batch_at_in_order(0, 4)
    assert batch["input_ids"].tolist() == [
        [1, 13, 14, 15, 16, 2, 11, 12, 2, 0],
        [1, 23, 24, 2, 21, 22, 2, 0, 0, 0],
        [1, 31, 32, 33, 2, 34, 35, 36, 37, 2],
        [1, 41, 2, 0, 0, 0, 0, 0, 0, 0],
    ]
    assert batch["token_type_ids"][:, 5:].tolist() == [
        [0, 1, 1, 1, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 1, 1],
        [0, 0, 0, 0, 0],
    ]
    assert batch["next_sentence_labels"].tolist() == [[1], [1], [0], [0]]
    # A single token has no order: the row is there, its label weighs nothing.
    assert batch["next_sentence_weights"].tolist() == [[1], [1], [1], [0]]


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_labels_say_where_the_second_part_comes_from(write_store, objective):
    documents = small_stores.random_documents(1, 30)
    where = small_stores.places(documents)
    made = small_stores.open_instances(
        write_store(documents, shard_tokens=400), objective, 24
    )
    for epoch in range(3):
        batch = small_stores.epoch_of(made, epoch)
        for row in range(made.num_instances):
            found = small_stores.parts(batch, row)
            if len(found) == 1:
                assert objective == "sop" and len(found[0]) == 1
                continue
            first, second = found
            # Each part is one run of neighboring tokens of one document.
            for part in found:
                assert part == list(range(part[0], part[0] + len(part)))
                assert where[part[0]][0] == where[part[-1]][0]
            same = where[first[0]][0] == where[second[0]][0]
            label = batch["next_sentence_labels"][row, 0]
            if objective == "nsp":
                assert same == (label == 0)
                assert not same or first[-1] < second[0]
            else:
                assert same and (first[-1] < second[0]) == (label == 0)


@pytest.mark.parametrize("objective", ["nsp", "sop"])
def test_labels_are_balanced(write_store, objective):
    made = small_stores.open_instances(
        write_store(small_stores.random_documents(2, 60, longest=5)), objective, 16
    )
    batch = small_stores.epochs_of(made, 40)
    labels, weights = batch["next_sentence_labels"], batch["next_sentence_weights"]
    # Chunks of one sentence are always random in nsp, so there are some more.
    share = labels[weights > 0].mean()
    assert 0.48 < share < (0.65 if objective == "nsp" else 0.52)


def test_a_chunk_of_several_sentences_has_a_random_next_in_half_of_the_epochs(
    write_store,
):
    made = small_stores.open_instances(
        write_store([[[11], [12], [13]], [[21], [22]]]), "nsp", 6
    )
    labels = small_stores.epochs_of(made, 2000)["next_sentence_labels"]
    assert made.num_instances == 2
    assert abs(labels.mean() - 0.5) < 5 * 0.5 / np.sqrt(4000)


def test_random_next_is_each_other_document_equally_often(write_store):
    # One sentence each, the last far longer: documents count, not their tokens.
    documents = [[[10 * d]] for d in range(1, 7)] + [[list(range(70, 140))]]
    made = small_stores.open_instances(write_store(documents), "nsp", 9)
    counts = np.zeros((7, 7), int)
    batch = small_stores.epochs_of(made, 1200)
    for row in range(7 * 1200):
        first, second = small_stores.parts(batch, row)
        counts[min(first[0] // 10, 7) - 1, min(second[0] // 10, 7) - 1] += 1
    assert not counts.diagonal().any()
    # 1200 / 6 = 200 with a standard deviation of 12.9.
    assert np.abs(counts[~np.eye(7, dtype=bool)] - 200).max() < 65


def test_random_next_begins_at_any_sentence_and_fills_the_row(write_store):
    documents = [[[11]], [[20 + i] for i in range(10)]]
    made = small_stores.open_instances(write_store(documents), "nsp", 8)
    starts = np.zeros(10, int)
    batch = small_stores.epochs_of(made, 2000)
    begin = batch["input_ids"][:, 1:3]
    for row in np.flatnonzero((begin == [11, small_stores.SEP]).all(axis=1)):
        first, second = small_stores.parts(batch, row)
        starts[second[0] - 20] += 1
        # Five places, one taken: four sentences if there are as many.
        assert len(second) == min(4, 30 - second[0])
    # 2000 / 10 with a standard deviation of 13.4.
    assert np.abs(starts - 200).max() < 67


def test_every_epoch_pairs_anew_and_is_as_long(write_store):
    made = small_stores.open_instances(
        write_store(small_stores.random_documents(3, 50)), "nsp", 32
    )
    epochs = [small_stores.epoch_of(made, epoch) for epoch in range(2)]
    rows = [{tuple(row) for row in batch["input_ids"].tolist()} for batch in epochs]
    assert len(rows[0] & rows[1]) < 0.35 * made.num_instances
    # The same chunks all the same: rows begin with the same tokens, where not cut.
    first = [{row[1] for row in found} for found in rows]
    assert len(first[0] & first[1]) > 0.7 * made.num_instances


def test_copies_of_a_row_are_paired_apart(write_store):
    opened = write_store(small_stores.random_documents(11, 20), weights=(30.0,))
    made = small_stores.open_instances(opened, "nsp", 40)
    rows = made.batch_at_in_order(0, made.num_instances)["input_ids"]
    assert len({tuple(row) for row in rows.tolist()}) > made.num_instances / 3


def test_short_pairs_are_as_many_as_asked(write_store):
    documents = [[[10 + d, 10 + d]] * 9 for d in range(400)]
    opened = write_store(documents)
    made = small_stores.open_instances(opened, "sop", 21, short=0.25)
    lengths = made.batch_at_in_order(0, made.num_instances)["segment_ids"].sum(axis=1)
    # 18 tokens fill a chunk unless the document drew fewer: 16 of 17 draws do.
    full = (lengths == 21).sum()
    assert abs(full / 400 - (1 - 0.25 * 16 / 17)) < 5 * np.sqrt(0.25 * 0.75 / 400)


def test_one_document_has_no_random_next(write_store):
    opened = write_store(small_stores.DOCUMENTS[2:])
    with pytest.raises(errors.InputError, match="one document.*'sop'"):
        small_stores.open_instances(opened, "nsp", 10)
    assert small_stores.open_instances(opened, "sop", 10).num_instances == 1
