"""Train steps that are timed against each other: ours, and transformers' in torch."""

import dataclasses
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import synthetic_batches_lib
from flax import linen as nn

from bert_jax import errors
from bert_jax.checkpoints import huggingface, weights
from bert_jax.model import config, encoder, network
from bert_jax.tasks import pretraining
from bert_jax.tasks.masking import Masking
from bert_jax.training import optimizer, sharding, state

OURS, TORCH = "ours", ("eager", "sdpa", "compile")
RANDOM = ("threefry2x32", "rbg", "unsafe_rbg")
MASKED_LM_PROB = 0.15
_OPTIMIZER = optimizer.OptimizerConfig(learning_rate=1e-4)
_STEPS = 1000


@dataclasses.dataclass(frozen=True)
class Side:
    """One of those that are compared.

    Attributes:
      name: `ours`, or a way in which torch computes attention (`compile`: sdpa, and
        torch.compile).
      dtype: of activations and products.
      packed: whether the sequences share rows (only ours).
      dropout: of hidden states and attention probabilities.
      remat, unroll, attention: as in `encoder.Execution` (only ours).
      random: the generator of dropout and masks, as `jax.random` names it (only ours);
        all but the default give other numbers on other meshes.
    """

    name: str
    dtype: str = "float32"
    packed: bool = False
    dropout: float = 0.1
    remat: str = "none"
    unroll: int = -1
    attention: str = "auto"
    random: str = RANDOM[0]


def side(text: str) -> Side:
    """Reads `ours+packed+dropout=0`; raises InputError for what is unknown.

    >>> side("ours+packed+remat=dots").remat
    'dots'
    """
    name, *options = text.split("+")
    if name not in (OURS, *TORCH):
        raise errors.InputError(f"{text}: a side is {OURS} or {', '.join(TORCH)}")
    given: dict[str, Any] = {}
    for option in options:
        key, _, value = option.partition("=")
        if option in encoder.DTYPES:
            given["dtype"] = option
        elif option == "packed":
            given["packed"] = True
        elif option in RANDOM:
            given["random"] = option
        elif key in ("dropout", "remat", "unroll", "attention") and value:
            kind = {"dropout": float, "unroll": int}.get(key, str)
            given[key] = kind(value)
        else:
            raise errors.InputError(
                f"{text}: {option!r} is not an option; choose packed, dropout=0, "
                f"remat=full, unroll=1, attention=xla, {', '.join(encoder.DTYPES)} and "
                f"{', '.join(RANDOM)}"
            )
    if name != OURS and given.keys() - {"dtype", "dropout"}:
        raise errors.InputError(f"{text}: torch takes only a dtype and dropout")
    return Side(name, **given)


@dataclasses.dataclass(frozen=True, eq=False)
class Ready:
    """A step that can be timed.

    Attributes:
      step: does one, and returns when its results are there.
      tokens: real ones of its batch.
      effective_length: tokens that a token attends to, in the mean.
      compile_seconds: until the first step was done.
      temporaries: bytes of the compiled step in addition to its arguments; None if
        unknown.
    """

    step: Callable[[], None]
    tokens: int
    effective_length: float
    compile_seconds: float
    temporaries: int | None


def ready(
    contender: Side, bert: config.BertConfig, rows: int, length: int, fill: float
) -> Ready:
    """Makes the model, the batch and the step of a side, and does two steps."""
    batch = synthetic_batches_lib.rows(
        bert, rows, length, fill=fill, packed=contender.packed
    )
    bert = dataclasses.replace(
        bert,
        hidden_dropout_prob=contender.dropout,
        attention_probs_dropout_prob=contender.dropout,
    )
    if contender.name != OURS:
        return begun(lambda: (torch_step(contender, bert, batch), None), batch)
    task = our_task(contender, bert, length)
    with jax.default_prng_impl(contender.random):
        return begun(lambda: our_step(task, batch, _OPTIMIZER, _STEPS), batch)


def begun(
    build: Callable[[], tuple[Callable[[], None], int | None]],
    batch: synthetic_batches_lib.Batch,
) -> Ready:
    """Does the two first steps of what is built: a step, and its temporaries."""
    start = time.perf_counter()
    step, temporaries = build()
    step()
    seconds = time.perf_counter() - start
    step()
    tokens = int((batch["segment_ids"] > 0).sum())
    attended = synthetic_batches_lib.effective_length(batch)
    return Ready(step, tokens, attended, seconds, temporaries)


def our_task(
    contender: Side, bert: config.BertConfig, length: int
) -> pretraining.Pretraining:
    """Returns the pretraining task of a side, MLM and NSP."""
    masking = Masking(
        masked_lm_prob=MASKED_LM_PROB,
        max_predictions=-(-length * 15 // 100),
        max_seq_length=length,
        whole_word=False,
        max_ngram=1,
        mask_id=synthetic_batches_lib.MASK,
        special_ids=synthetic_batches_lib.SPECIAL_IDS,
        vocab_size=bert.vocab_size,
    )
    execution = encoder.Execution(
        contender.dtype,
        contender.unroll,
        contender.remat,
        contender.attention,
        contender.packed,
    )
    model = network.for_pretraining(bert, execution)
    return pretraining.Pretraining(model, masking, masking)


def our_step(
    task: pretraining.Pretraining,
    batch: synthetic_batches_lib.Batch,
    recipe: optimizer.OptimizerConfig,
    steps: int,
) -> tuple[Callable[[], None], int]:
    """Compiles the train step of a run; returns it, and the bytes of temporaries."""
    mesh = sharding.make_mesh(1, 1, 1)
    transformation = optimizer.make(recipe, steps)
    shapes = state.abstract(task.init, transformation, mesh)
    train_step = state.make_train_step(
        state.StepSpec(task.prepare, task.weights, task.losses),
        transformation,
        optimizer.learning_rate(recipe, steps),
        shapes,
        seed=0,
    )
    now = state.create(task.init, jax.random.key(0), transformation, mesh)
    on_device = sharding.to_devices(batch, mesh)
    compiled = train_step.lower(now, on_device).compile()

    def step() -> None:
        nonlocal now
        now, metrics = compiled(now, on_device)
        jax.block_until_ready((now, metrics))

    return step, compiled.memory_analysis().temp_size_in_bytes


def torch_step(
    contender: Side, bert: config.BertConfig, batch: synthetic_batches_lib.Batch
) -> Callable[[], None]:
    """Returns a step of transformers' model."""
    import torch

    model = torch_model(contender, bert).train()
    adamw = torch.optim.AdamW(model.parameters(), lr=1e-4, weight_decay=0.01)
    rng = np.random.default_rng(1)
    chosen = rng.random(batch["input_ids"].shape) < MASKED_LM_PROB
    masked = chosen & batch["word_start"]
    ids = np.where(masked, synthetic_batches_lib.MASK, batch["input_ids"])
    inputs = torch_inputs(batch, ids, masked)
    device = next(model.parameters()).device.type
    half = contender.dtype == "bfloat16"

    def step() -> None:
        adamw.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, enabled=half):
            loss = model(**inputs).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adamw.step()
        loss.item()  # waits for the device

    return step


def torch_model(contender: Side, bert: config.BertConfig) -> Any:
    """Returns transformers' BertForPreTraining, on the device that torch has."""
    import torch
    import transformers

    names = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
    names += ("intermediate_size", "max_position_embeddings", "hidden_dropout_prob")
    names += ("attention_probs_dropout_prob",)
    given = transformers.BertConfig(**{name: getattr(bert, name) for name in names})
    given._attn_implementation = "eager" if contender.name == "eager" else "sdpa"
    model = transformers.BertForPreTraining(given)
    model = model.to("cuda" if torch.cuda.is_available() else "cpu")
    return torch.compile(model) if contender.name == "compile" else model


def torch_inputs(
    batch: synthetic_batches_lib.Batch, input_ids: np.ndarray, masked: np.ndarray
) -> dict[str, Any]:
    """Returns what torch's model takes: the rows as they are masked, and where."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    arrays = {
        "input_ids": input_ids,
        "token_type_ids": batch["token_type_ids"],
        "attention_mask": (batch["segment_ids"] > 0).astype(np.int64),
        "labels": np.where(masked, batch["input_ids"], -100),
        "next_sentence_label": batch["next_sentence_labels"][:, 0],
    }
    return {
        name: torch.tensor(array, device=device).long()
        for name, array in arrays.items()
    }


def losses(bert: config.BertConfig, length: int) -> tuple[float, float]:
    """Returns our loss and torch's of the same weights and masks, float32.

    Four rows of which a third is padding, without dropout.
    """
    import torch

    bert = dataclasses.replace(
        bert, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0
    )
    task = our_task(side("ours"), bert, length)
    mesh = sharding.make_mesh(1, 1, 1)
    params = jax.jit(lambda key: nn.unbox(task.init(key)))(jax.random.key(0))
    batch = synthetic_batches_lib.rows(bert, 4, length, fill=0.67, packed=False)
    prepare = sharding.jit(task.prepare, mesh)
    masked = prepare(sharding.to_devices(batch, mesh), jax.random.key(1))

    def loss(params: Any, batch: Any) -> Any:
        sums, _ = task.losses(params, batch, jax.random.key(2))
        return sum(sums[name] / weight for name, weight in task.weights(batch).items())

    ours = sharding.jit(loss, mesh)(params, masked)
    host = jax.device_get(masked)
    row, slot = np.nonzero(host["masked_lm_weights"])
    is_masked = np.zeros(batch["input_ids"].shape, bool)
    is_masked[row, host["masked_lm_positions"][row, slot]] = True
    inputs = torch_inputs(batch, host["input_ids"], is_masked)
    model = torch_model(side("sdpa"), bert).eval()
    cut = network.cut_vocabulary(jax.device_get(params), bert.vocab_size)
    arrays = huggingface.state_dict(weights.Weights(bert, cut))
    given = {name: torch.tensor(array) for name, array in arrays.items()}
    missing, unexpected = model.load_state_dict(given, strict=False)
    left = [name for name in missing if "decoder" not in name]  # it is tied
    if left or unexpected:
        raise errors.InputError(f"torch's model differs: {left}, {unexpected}")
    model.tie_weights()
    with torch.no_grad():
        return float(ours), float(model(**inputs).loss)
