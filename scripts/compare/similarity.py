"""Sentence similarity: cosines of a model's vectors compared with human scores.

python scripts/compare/similarity.py --model=FOLDER --pairs=SICK_train.txt --pairs=SICK_trial.txt

Prints Spearman's correlation (times 100) for each file. The format is that of SICK
(Marelli et al. 2014): tab-separated, with a header that has sentence_A, sentence_B and
relatedness_score.
"""  # noqa: E501

import csv
from pathlib import Path

import numpy as np
from absl import flags

import bert_jax
from bert_jax import commands, errors


def read_pairs(path: Path) -> list[tuple[str, str, float]]:
    """Returns pairs of sentences with their scores.

    Raises:
      InputError: a column is missing or a score is not a number, with the line.
    """
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file, delimiter="\t", quoting=csv.QUOTE_NONE)
        pairs = []
        for row in rows:
            try:
                score = float(row["relatedness_score"])
                pairs.append((row["sentence_A"], row["sentence_B"], score))
            except (KeyError, TypeError, ValueError) as error:
                raise errors.InputError(
                    f"{path}:{rows.line_num}: no sentence_A, sentence_B and "
                    f"relatedness_score ({error})"
                ) from None
    if not pairs:
        raise errors.InputError(f"{path} has no pairs")
    return pairs


def ranks(values: np.ndarray) -> np.ndarray:
    """Returns ranks from 0; equal values have the mean of their ranks.

    >>> ranks(np.array([3.0, 1.0, 3.0])).tolist()
    [1.5, 0.0, 1.5]
    """
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    return (ends - (counts + 1) / 2)[inverse]


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    """Returns the rank correlation, from -1 to 1."""
    return float(np.corrcoef(ranks(one), ranks(other))[0, 1])


def main(argv: list[str]) -> None:
    """Runs the command."""
    commands.no_arguments(argv)
    folder, paths = commands.required("model", "pairs")
    model = bert_jax.load(folder)
    for path in paths:
        pairs = read_pairs(Path(path))
        first, second, scores = zip(*pairs, strict=True)
        vectors = model.encode([*first, *second], normalize=True)
        cosines = np.sum(vectors[: len(pairs)] * vectors[len(pairs) :], axis=1)
        result = 100 * spearman(cosines, np.array(scores))
        print(f"{path}: {len(pairs):,} pairs, Spearman {result:.2f}")


if __name__ == "__main__":
    flags.DEFINE_string("model", None, "Folder of a model.")
    flags.DEFINE_multi_string("pairs", [], "File of pairs; may be repeated.")
    commands.run(main)
