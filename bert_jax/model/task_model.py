"""A BERT with the head of one task: what is fine-tuned.

Heads that Hugging Face also has keep its layout (arXiv:1810.04805, section 4): pooler,
dropout and a linear map for texts; dropout and a linear map for tokens, for the ends of
answers and for choices. A BiLSTM over all tokens, other poolings and a CRF are ours.
"""

import dataclasses

POOLINGS = ("cls", "mean", "max", "bilstm")
KINDS = ("classifier", "tagger", "span", "multiple_choice", "vectors")


@dataclasses.dataclass(frozen=True)
class Head:
    """What sits on the encoder.

    Attributes:
      kind: `classifier` [B, C], `tagger` [B, L, C], `span` [B, L, 2] (start, end),
        `multiple_choice` [B, K] or `vectors` [B, K, D] (pooled texts, no linear map).
      classes: C.
      pooling: of classifier, choice and vectors: `cls` through the pooler, `mean` or
        `max` over all tokens, or the `bilstm`'s last states.
      recurrent_size: width of each direction of the BiLSTM; 0 = there is none.
      crf: whether tags are scored by a linear-chain CRF (its parameters are made here).
      at_predicate: whether a tagger also sees the token at `predicate_positions`
        [B, Q], and gives logits [B, Q, L, C] (all predicates of a row in one pass).
      dropout: before the linear map.
    """

    kind: str
    classes: int = 1
    pooling: str = "cls"
    recurrent_size: int = 0
    crf: bool = False
    at_predicate: bool = False
    dropout: float = 0.1


def parts(head: Head) -> tuple[str, ...]:
    """Returns the names of the parts of a model with this head."""
    raise NotImplementedError
