"""Whether a model is as often right as it is sure: ECE and Brier score.

The expected calibration error follows Guo et al. 2017 (arXiv:1706.04599, section 2):
bins of equal width, (m - 1) / M < confidence <= m / M, and the mean of the gap between
confidence and accuracy over the examples.
"""

import dataclasses

import numpy as np
from jaxtyping import Bool, Float, Int

from bert_jax.metrics import scores

BINS = 15


@dataclasses.dataclass(frozen=True)
class Bins:
    """Examples gathered by how sure the model was; 0 where a bin has none.

    Attributes:
      edges: [M + 1], from 0 to 1.
      counts: [M].
      confidences: [M], the mean of each bin.
      accuracies: [M], the share of each bin that is right.
    """

    edges: Float[np.ndarray, " edges"]
    counts: Int[np.ndarray, " M"]
    confidences: Float[np.ndarray, " M"]
    accuracies: Float[np.ndarray, " M"]

    @property
    def expected_error(self) -> float:
        """The expected calibration error, in [0, 1]."""
        gaps = np.abs(self.accuracies - self.confidences)
        return float(np.sum(gaps * self.counts) / max(self.counts.sum(), 1))


def bins(certainty: scores.Certainty, count: int = BINS) -> Bins:
    """Returns the bins of equal width that the confidences, in [0, 1], fall into."""
    edges = np.linspace(0.0, 1.0, count + 1)
    place = np.searchsorted(edges[1:], certainty.confidences, side="left")
    place = np.minimum(place, count - 1)  # rounding may leave a sum above 1
    counts = np.bincount(place, minlength=count)
    some = np.maximum(counts, 1)
    sure = np.bincount(place, certainty.confidences.astype(float), count)
    right = np.bincount(place, certainty.hits.astype(float), count)
    return Bins(edges, counts, sure / some, right / some)


def brier(
    probabilities: Float[np.ndarray, "n C"], truths: Bool[np.ndarray, "n C"]
) -> float:
    """Returns the mean over the examples of the squared errors of all classes.

    It lies in [0, 2], as Brier (1950) has it, for two classes too: there it is twice
    the squared error of the second class alone.
    """
    return float(np.mean(np.sum((probabilities - truths) ** 2, axis=1)))
