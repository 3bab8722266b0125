"""The same fine-tuning in torch: transformers' model on the batches of a bert_jax run.

Both have the weights of the same folder, the batches of `TrainingRows.batch_at`, AdamW
with the same learning rates, moments, clipping and decay exemptions, the same dropout
rates and number of steps, and of the recipes frozen layers, adversarial training (FGM)
and averaging. The loss is that of `transformers`, except for spans, where its softmax
includes padding. Its predictions for dev are decoded and scored by our task, so that
differences come only from training.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np

from bert_jax import errors
from bert_jax.data.labeled import example_rows
from bert_jax.runs import finetuning as finetuning_run
from bert_jax.tasks import spec
from bert_jax.training import optimizer

# Labels that `transformers` ignores: padding, and subwords that do not begin a token.
IGNORED = -100
_CLASSES = {
    "classifier": "BertForSequenceClassification",
    "tagger": "BertForTokenClassification",
    "span": "BertForQuestionAnswering",
}
_POOLINGS = ("cls", "mean")
_FORBIDDEN = np.float32(-1e9)


def predictions(
    run: finetuning_run.FinetuningRun, seed: int, num_train_steps: int
) -> list[spec.Prediction]:
    """Trains on the rows of a run with a seed, and returns the predictions for dev.

    Raises:
      InputError: torch or transformers is not installed, or cannot read the folder.
    """
    torch = import_torch()
    torch.manual_seed(seed)
    model = _train(_model(run), run, seed, num_train_steps)
    return run.task.decode(run.dev.examples, run.dev.table, _outputs(model, run))


def import_torch() -> Any:
    """Returns torch; raises InputError if it or transformers is not installed."""
    try:
        import torch
        import transformers  # noqa: F401
    except ImportError as error:
        raise errors.missing_extra(error.name or "torch", "torch") from None
    return torch


def _model(run: finetuning_run.FinetuningRun) -> Any:
    """Loads the folder's weights in float32, with transformers' random head."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    head: Any = run.task.model.head  # pyright: ignore[reportAttributeAccessIssue]
    bert = run.start.bert
    if head.pooling not in _POOLINGS or head.recurrent_size or head.crf:
        raise errors.InputError(
            "transformers has no BiLSTM, no CRF, and no such pooling"
        )
    try:
        model = getattr(transformers, _CLASSES[head.kind]).from_pretrained(
            run.settings.init_from,
            local_files_only=True,
            num_labels=head.classes,
            classifier_dropout=head.dropout,
            hidden_dropout_prob=bert.hidden_dropout_prob,
            attention_probs_dropout_prob=bert.attention_probs_dropout_prob,
        )
    except OSError as error:
        raise errors.InputError(
            f"{run.settings.init_from}: transformers cannot read it: {error}"
        ) from None
    model = model.float().to("cuda" if torch.cuda.is_available() else "cpu")
    return _mean_pooled(model) if head.pooling == "mean" else model


def _mean_pooled(model: Any) -> Any:
    """Returns a classifier of transformers on the mean of a text's tokens.

    With one output it is a regression, as in transformers.
    """
    import torch
    import transformers

    class MeanPooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model, self.device = model, model.device

        def get_input_embeddings(self) -> Any:
            return self.model.get_input_embeddings()

        def forward(self, labels: Any = None, **texts: Any) -> Any:
            tokens = self.model.bert(**texts).last_hidden_state
            weights = texts["attention_mask"][..., None].to(tokens.dtype)
            means = (tokens * weights).sum(1) / weights.sum(1)
            logits = self.model.classifier(self.model.dropout(means))
            output = transformers.modeling_outputs.SequenceClassifierOutput
            if labels is None:
                return output(logits=logits)
            if logits.shape[-1] == 1:
                loss = torch.nn.functional.mse_loss(logits[:, 0], labels)
            else:
                loss = torch.nn.functional.cross_entropy(logits, labels)
            return output(loss=loss, logits=logits)

    return MeanPooled()


def groups(model: Any, config: optimizer.OptimizerConfig) -> list[dict[str, Any]]:
    """Returns the parameters with and without weight decay (biases, LayerNorm)."""
    exempt: list[Any] = []
    decayed: list[Any] = []
    for name, parameter in model.named_parameters():
        is_exempt = name.endswith(".bias") or "LayerNorm" in name
        (exempt if is_exempt else decayed).append(parameter)
    return [
        {"params": decayed, "weight_decay": config.weight_decay},
        {"params": exempt, "weight_decay": 0.0},
    ]


def _train(
    model: Any, run: finetuning_run.FinetuningRun, seed: int, num_train_steps: int
) -> Any:
    """Runs the steps of a run, and returns the model to score."""
    import torch

    config = run.settings.optimizer
    _, schedule = run.make_optimizer(num_train_steps)
    rows = run.rows(seed)
    adamw = torch.optim.AdamW(
        groups(model, config),
        lr=config.learning_rate,
        betas=(config.beta1, config.beta2),
        eps=config.epsilon,
    )
    recipe = run.settings.recipe
    _freeze(model, recipe.frozen_layers)
    averaged = _averaged(model, decay) if (decay := recipe.average_decay) else None
    model.train()
    for step in range(num_train_steps):
        for group in adamw.param_groups:
            group["lr"] = float(schedule(step))
        adamw.zero_grad(set_to_none=True)
        batch = _tensors(model, inputs(rows.batch_at(step)))
        loss = _backward(model, batch, recipe.adversarial_epsilon)
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.max_grad_norm)
        adamw.step()
        if averaged is not None:
            averaged.update_parameters(model)
        if not np.isfinite(loss.item()):
            raise errors.NotFiniteError(f"torch: the loss of step {step} is {loss}")
    return model if averaged is None else averaged.module


def _freeze(model: Any, layers: int) -> None:
    """Freezes the embeddings and the first layers; nothing if `layers` is below 0."""
    bert = getattr(model, "model", model).base_model
    if layers >= 0:
        for part in (bert.embeddings, *bert.encoder.layer[:layers]):
            part.requires_grad_(False)


def _averaged(model: Any, decay: float) -> Any:
    """Returns a moving average of a model with bias correction, as ours."""
    import torch

    def moved(average: Any, now: Any, count: Any) -> Any:
        weight = (1.0 - decay) / (1.0 - decay ** (float(count) + 1.0))
        return average + weight * (now - average)

    return torch.optim.swa_utils.AveragedModel(model, avg_fn=moved)


def _backward(model: Any, batch: dict[str, Any], epsilon: float) -> Any:
    """Adds the gradients of a batch and of its adversarial embeddings.

    Both passes have the same dropout. Returns the loss of the former.
    """
    import torch

    with torch.random.fork_rng(enabled=epsilon > 0):
        loss = _loss(model, dict(batch))
        loss.backward()
    if not epsilon:
        return loss
    table = model.get_input_embeddings().weight
    before, norm = table.detach().clone(), table.grad.norm()
    with torch.no_grad():
        table.add_(table.grad / torch.where(norm > 0, norm, 1.0), alpha=epsilon)
    _loss(model, dict(batch)).backward()
    with torch.no_grad():
        table.copy_(before)
    return loss


def _loss(model: Any, batch: dict[str, Any]) -> Any:
    """Returns the mean loss of a batch."""
    import torch

    if "start_positions" not in batch:
        return model(**batch).loss
    ends = [batch.pop(name) for name in ("start_positions", "end_positions")]
    found = model(**batch)
    is_padding = batch["attention_mask"] == 0
    losses = [
        torch.nn.functional.cross_entropy(
            logits.masked_fill(is_padding, float(_FORBIDDEN)), labels
        )
        for logits, labels in zip(
            (found.start_logits, found.end_logits), ends, strict=True
        )
    ]
    return sum(losses) / 2


def inputs(batch: spec.Batch) -> spec.Batch:
    """Returns the arguments of transformers' model for a batch, labels among them.

    Padding rows are removed.
    """
    count = int(batch[example_rows.WEIGHTS].sum())
    batch = {name: array[:count] for name, array in batch.items()}
    arguments = _texts(batch)
    if "start_positions" in batch:
        for name in ("start_positions", "end_positions"):
            labels = np.where(batch["label_weights"] > 0, batch[name], IGNORED)
            arguments[name] = labels
    elif "token_positions" in batch:
        arguments["labels"] = on_first_subwords(batch)
    else:
        arguments["labels"] = batch["scores" if "scores" in batch else "labels"]
    return arguments


def _texts(batch: spec.Batch) -> spec.Batch:
    names = ("input_ids", "token_type_ids")
    return {name: batch[name] for name in names} | {
        "attention_mask": batch["segment_ids"]
    }


def on_first_subwords(batch: spec.Batch) -> np.ndarray:
    """Returns labels [B, L]: a token's on its first subword, elsewhere `IGNORED`."""
    labels = np.full(batch["input_ids"].shape, IGNORED, np.int64)
    row, token = np.nonzero(batch["token_weights"])
    position = batch["token_positions"][row, token]
    labels[row, position] = batch["labels"][row, token]
    return labels


def _tensors(model: Any, arrays: spec.Batch) -> dict[str, Any]:
    """Returns arrays as tensors on the model's device, integers as int64."""
    import torch

    tensors = {}
    for name, array in arrays.items():
        kind = np.float32 if array.dtype.kind == "f" else np.int64
        tensors[name] = torch.from_numpy(array.astype(kind)).to(model.device)
    return tensors


def _outputs(model: Any, run: finetuning_run.FinetuningRun) -> spec.Outputs:
    """Returns the model's outputs for each row of dev, named as by `task.predict`."""
    import torch

    table, columns = run.dev.table, {}
    model.eval()
    with torch.inference_mode():
        for rows, batch in _batches(run):
            found = model(**_tensors(model, _texts(batch)))
            logits = {n: x.float().cpu().numpy() for n, x in found.items()}
            for name, values in outputs(run.task, logits, batch).items():
                column = columns.setdefault(name, [None] * len(table))
                for row, value in zip(rows, values, strict=False):
                    column[row] = np.asarray(value)
    return columns


def _batches(
    run: finetuning_run.FinetuningRun,
) -> Iterator[tuple[np.ndarray, spec.Batch]]:
    return example_rows.in_order(
        run.dev.table,
        run.settings.run.eval_batch_size,
        run.start.bert.max_length,
        run.settings.data.num_lengths,
    )


def outputs(
    of_task: Any, logits: dict[str, np.ndarray], batch: spec.Batch
) -> dict[str, np.ndarray]:
    """Returns the logits of transformers as the outputs of a task's `predict`."""
    if "start_logits" in logits:
        allowed = batch["char_starts"] < batch["char_ends"]
        allowed[:, 0] |= of_task.version2
        return {
            name: np.where(allowed, logits[f"{name}_logits"], _FORBIDDEN)
            for name in ("start", "end")
        }
    found = logits["logits"]
    if "token_positions" in batch:
        positions = batch["token_positions"][..., None].astype(np.int64)
        probabilities = softmax(np.take_along_axis(found, positions, axis=1))
        return {
            "tags": probabilities.argmax(-1),
            "probabilities": probabilities.max(-1),
        }
    if "scores" in batch:
        return {"scores": found[:, 0] * of_task.deviation + of_task.mean}
    return {"probabilities": softmax(found)}


def softmax(logits: np.ndarray) -> np.ndarray:
    """Returns probabilities along the last axis."""
    exponents = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponents / exponents.sum(axis=-1, keepdims=True)
