"""What a step needs, by formula: for chips that no program can be compiled for here."""

from bert_jax.model import attention_choice, costs
from bert_jax.planning import collectives, program
from bert_jax.planning.prediction import Needs

_FLOAT32 = 4
# Arrays of the size of the parameters that an update reads and writes: parameters,
# gradients and two moments, and all but the gradients again.
_UPDATE = 7
# Every activation that is kept is written and read again, and so is its gradient.
_PASSES = 4


def needs(layout: program.Layout, length: int) -> Needs:
    """Returns what one chip does in a step of rows of so many tokens, by formula."""
    settings, bert = layout.settings, layout.bert
    micro = settings.run.accumulation_steps
    execution, rows = settings.run.execution(), _rows(layout, length)
    kept = costs.activation_bytes(bert, execution, rows)
    params = layout.params_bytes
    weights = 2 * params  # read in bfloat16 by the forward and the backward pass
    traffic = _UPDATE * params + micro * (weights + params + _PASSES * kept)
    useful = useful_flops(layout, length)
    return Needs(
        useful,
        useful * _with_recomputed(settings.run.remat),
        traffic,
        _collectives(layout, length),
        params + layout.optimizer_bytes,
        kept + params * (2 if micro > 1 else 1) + params / 2,
    )


def useful_flops(layout: program.Layout, length: int) -> float:
    """Returns the share of one chip in the FLOPs of a step, by `model.costs`."""
    masking = layout.task.masking
    share = masking.predictions(length) / length
    cost = costs.training_flops_per_token(layout.bert, length, share)
    return cost * layout.settings.run.batch_size * length / layout.chips


def attention(layout: program.Layout, length: int) -> attention_choice.Choice:
    """Returns the kernel that computes attention on these chips, and why.

    Raises InputError if `run.attention` forces one that cannot.
    """
    settings, bert = layout.settings, layout.bert
    case = attention_choice.Case(
        platform=layout.topology.platform,
        capability="8.0",  # the oldest GPU in the table of chips
        dtype=settings.run.dtype,
        length=length,
        head_size=bert.head_size,
        dropout=bert.attention_probs_dropout_prob,
        packed=settings.data.pack,
    )
    return attention_choice.choose(case, settings.run.attention)


def _rows(layout: program.Layout, length: int) -> costs.Rows:
    return costs.Rows(
        layout.rows_a_chip,
        length,
        layout.task.masking.predictions(length),
        layout.tensor,
        attention(layout, length).kernel != attention_choice.XLA,
    )


def _with_recomputed(remat: str) -> float:
    """Returns by how much recomputing multiplies the work: a forward pass is a third.

    `dots` keeps the products with weights, and computes those of attention again.
    """
    return 4 / 3 if remat == "full" else 1.0


def _collectives(
    layout: program.Layout, length: int
) -> tuple[collectives.Collective, ...]:
    """Returns what the mesh makes chips send: gradients, weights, parts of sums."""
    micro, whole = layout.settings.run.accumulation_steps, layout.params_bytes
    data, fsdp, tensor = layout.mesh.shape.values()
    rows = _rows(layout, length)
    b = 2 if layout.settings.run.dtype == "bfloat16" else _FLOAT32
    activation = rows.tokens * layout.bert.hidden_size * b
    sums = 4 * layout.bert.num_hidden_layers * micro
    made = [
        _collective("all-reduce", data, micro, whole),
        _collective("all-gather", fsdp, 2 * micro, whole * fsdp),
        _collective("reduce-scatter", fsdp, micro, whole * fsdp),
        _collective("all-reduce", tensor, sums, activation),
    ]
    return tuple(one for one in made if one.group > 1)


def _collective(
    kind: str, group: int, count: int, size: int | float
) -> collectives.Collective:
    sent = collectives.sent(kind, group, count * size)
    return collectives.Collective(kind, group, count, float(count * size), sent)
