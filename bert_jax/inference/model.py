"""A model from its folder, with its tokenizer: the way in for Python users.

model = bert_jax.load("runs/demo_finetune")
model.predict(["这家酒店很好"])
"""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, overload

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, PyTree

from bert_jax import checkpoints, errors
from bert_jax.checkpoints import sentence_encoder, weights
from bert_jax.data.labeled import example_rows, python_examples
from bert_jax.foundation import devices, hub
from bert_jax.inference import answer, encode
from bert_jax.inference.encode import Rows
from bert_jax.model import config as model_config
from bert_jax.model import encoder, heads, network
from bert_jax.tasks import spec
from bert_jax.text import coverage as text_coverage
from bert_jax.text.coverage import Coverage
from bert_jax.text.tokenizer import Tokenizer

Guesses = list[tuple[str, float]]


@dataclasses.dataclass(frozen=True, eq=False)
class Model:
    """A model that turns texts into vectors, and does what its heads are for.

    Attributes:
      tokenizer: of its folder.
      bert: its architecture.
      params: its parameters, on the device; the vocabulary is padded.
      max_seq_length: the longest row that it supports, in tokens.
      pooling: how token vectors become a sentence vector; unused for a bi-encoder
        whose vectors come from a BiLSTM, which pools in its task.
      labels: the names of the classes of a classifier or tagger.
      execution: how it runs.
      task: of a fine-tuned model, what answers.
    """

    tokenizer: Tokenizer
    bert: model_config.BertConfig
    params: PyTree
    max_seq_length: int
    pooling: sentence_encoder.Pooling = sentence_encoder.Pooling()
    labels: tuple[str, ...] = ()
    execution: encoder.Execution = encoder.Execution()
    task: answer.TaskModel | None = None

    def __repr__(self) -> str:
        """Returns what kind of model it is and how large, without its arrays."""
        count = sum(int(x.size) for x in jax.tree.leaves(self.params))
        does = self.task.kind if self.task else "encoder"
        classes = f", {len(self.labels)} labels" if self.labels else ""
        return (
            f"Model({does}{classes}, {self.bert.model_type}, "
            f"{self.bert.num_hidden_layers} layers of width {self.bert.hidden_size}, "
            f"{count:,} parameters, up to {self.max_seq_length} tokens)"
        )

    def __getstate__(self) -> dict[str, Any]:
        """Returns the state to pickle; arrays shared with the task only once."""
        kept = dict(vars(self))
        if self.task is not None and self.params is self.task.params:
            del kept["params"]
        return kept

    def __setstate__(self, kept: dict[str, Any]) -> None:
        """Restores the state; shared arrays come from the task."""
        vars(self).update(kept)
        if self.task is not None:
            vars(self).setdefault("params", self.task.params)

    def predict(self, values: Iterable[Any]) -> list[dict[str, Any]]:
        """Returns the prediction of a fine-tuned model for each text, as a dict.

        A value is a text, for tagging also a list of tokens; of other tasks a pair, or
        (question, context), (context, choices), (text, predicate): see
        `data.labeled.python_examples`.

        Raises:
          InputError: the model was not fine-tuned, or a value has the wrong form.
        """
        if self.task is None:
            raise errors.InputError(
                "this model was not fine-tuned for a task: train it with python -m "
                "bert_jax.finetune, or use fill_mask or encode"
            )
        return self.task.predict(values)

    def encode(
        self,
        texts: Sequence[str],
        normalize: bool = False,
        *,
        prompt_name: str | None = None,
        prompt: str | None = None,
    ) -> Float[np.ndarray, "n W"]:
        """Returns one float32 vector per text, with the pooling of this model.

        A bi-encoder returns the vectors that it was trained for, a folder of
        sentence-transformers those of that library, and any other model the mean over
        all tokens. Texts are truncated at `max_seq_length` tokens.

        Args:
          normalize: scale every vector to length 1, so that products are cosines; only
            on request, even of a model that sentence-transformers would scale.
          prompt_name: the prompt of the model to write before every text; without it
            the model's default prompt, if it has one.
          prompt: a text to write there instead; "" for none.

        Raises:
          InputError: `texts` is not a list of str, or there is no such prompt.
        """
        chosen = self.pooling.prompt(prompt_name, prompt)
        coverage = Coverage()
        rows = self.rows(texts, chosen, coverage)
        self.warn(coverage, "encode")
        vectors = self.sentence_vectors(rows, prompt=chosen)
        return encode.normalized(vectors) if normalize else vectors

    def warn(self, coverage: Coverage, name: str) -> None:
        """Logs a warning if many tokens of texts are [UNK] or many of them are cut."""
        advice = text_coverage.advice_on_length(self.max_seq_length)
        coverage.warn(self.tokenizer, name, advice)

    def rows(
        self, texts: Sequence[str], prompt: str = "", coverage: Coverage | None = None
    ) -> Rows:
        """Returns the ids of each text as the encoder reads it, after this prompt.

        The tokens of the texts are counted in `coverage`.

        Raises:
          InputError: `texts` is not a list of str.
        """
        truncation = ""
        if self.task is not None and self._encoder is not None:
            truncation = self.task.task_folder.settings.data.truncation
        return encode.rows_of(
            self.tokenizer,
            texts,
            self.max_seq_length,
            prompt=prompt,
            truncation=truncation,
            coverage=coverage,
        )

    def sentence_vectors(
        self, rows: Rows, kind: str = "sentence", prompt: str = ""
    ) -> Float[np.ndarray, "n W"]:
        """Returns one vector for each of `rows`, float32.

        Args:
          kind: `sentence` for those of `encode`, or one of `inference.encode.POOLINGS`.
          prompt: the text that every row starts with.
        """
        if kind == "sentence" and self._encoder is not None:
            return encode.trained_vectors(self._encoder.model, self.params, rows)
        skipped = 0
        if not self.pooling.include_prompt:
            skipped = encode.prompt_length(self.tokenizer, prompt, self.max_seq_length)
        modes = self.pooling.modes if kind == "sentence" else (kind,)
        vectors = encode.sentence_vectors(
            self.bert, self.params, rows, modes, self.execution, skipped=skipped
        )
        for module in self.pooling.modules if kind == "sentence" else ():
            vectors = module(vectors)
        return vectors

    @property
    def vector_size(self) -> int:
        """W, how many numbers a vector of `encode` has."""
        if self._encoder is not None:
            return encode.trained_size(self._encoder.model)
        return self.pooling.width(self.bert.hidden_size)

    @property
    def _encoder(self) -> spec.FineTuned | None:
        """The task of a bi-encoder; None of any other model."""
        of_task = None if self.task is None else self.task.predictor.task
        is_encoder = self.task is not None and self.task.task_spec.gives_vectors
        return of_task if is_encoder else None

    @overload
    def fill_mask(self, text: str, top: int = 5) -> list[Guesses]: ...

    @overload
    def fill_mask(self, text: Iterable[str], top: int = 5) -> list[list[Guesses]]: ...

    def fill_mask(
        self, text: str | Iterable[str], top: int = 5
    ) -> list[Guesses] | list[list[Guesses]]:
        """Returns the most likely tokens and their probabilities for every [MASK].

        In a text that is longer than a row, each mask gets the context that fits.

        Args:
          text: a text, or a list of texts, for which it returns a list of results.
          top: number of tokens per mask.

        Raises:
          InputError: a text has no [MASK] or is not a str, or there is no MLM head.
        """
        coverage = Coverage()
        texts = [text] if isinstance(text, str) else python_examples.texts_of(text)
        encoded = [self.ids(each, coverage) for each in texts]
        self.warn(coverage, "fill_mask")
        if isinstance(text, str):
            return self.fill_ids(encoded[0], top)
        return [
            self.fill_ids(ids, top, where=f"texts[{at}]")
            for at, ids in enumerate(encoded)
        ]

    def ids(self, text: str, coverage: Coverage) -> list[int]:
        """Returns the ids of a text for `fill_ids`, and counts them in `coverage`.

        Raises:
          InputError: the text has a mask and the vocabulary has none.
        """
        ids = self.tokenizer.encode_text(text)
        of_text = [token for token in ids if token != self.tokenizer.mask_id]
        coverage.add([text], [of_text], self.tokenizer.unk_id)
        coverage.texts += 1
        coverage.truncated += len(ids) > self.max_seq_length - 2
        return ids

    def fill_ids(
        self, ids: list[int], top: int = 5, *, where: str = "the text"
    ) -> list[Guesses]:
        """Does `fill_mask` for ids without [CLS] and [SEP], from `where`."""
        if "mlm_head" not in self.params:
            raise errors.InputError(
                f"this model cannot fill masks: it has {', '.join(self.params)}, and "
                "no mlm_head. Load one that was pretrained on masked tokens, or take "
                "vectors: encode, or predict with --task=features"
            )
        if top < 1:
            raise errors.InputError(f"top is {top}: give at least 1")
        masks = [at for at, token in enumerate(ids) if token == self.tokenizer.mask_id]
        if not masks:
            raise errors.InputError(
                f"{where} has no [MASK]: write one where a token is to be guessed, as "
                "in: The capital of France is [MASK]."
            )
        probabilities = [self._probabilities(*self._window(ids, at)) for at in masks]
        return [self._best(row, top) for row in probabilities]

    def _window(self, ids: list[int], at: int) -> tuple[list[int], int]:
        """Returns the ids around position `at` that fit a row, and its new position."""
        room = self.max_seq_length - 2
        first = max(0, min(at - room // 2, len(ids) - room))
        window = ids[first : first + room]
        row = [self.tokenizer.cls_id, *window, self.tokenizer.sep_id]
        return row, at - first + 1

    def _probabilities(self, row: list[int], position: int) -> Float[np.ndarray, " V"]:
        length = example_rows.bucket(len(row), self.max_seq_length)
        padded = np.zeros((1, length), np.int32)
        padded[0, : len(row)] = row
        segments = (np.arange(length) < len(row)).astype(np.int32)[None]
        return np.asarray(
            _masked_probabilities(
                self.bert,
                self.execution,
                self.params,
                padded,
                segments,
                np.array([[position]], np.int32),
            )
        )

    def _best(self, probabilities: Float[np.ndarray, " V"], top: int) -> Guesses:
        probabilities = probabilities.copy()
        probabilities[list(self.tokenizer.special_ids)] = 0.0
        best = np.argsort(-probabilities, kind="stable")[:top]
        return [(self.tokenizer.tokens[i], float(probabilities[i])) for i in best]


@functools.partial(jax.jit, static_argnums=(0, 1))
def _masked_probabilities(
    bert: model_config.BertConfig,
    execution: encoder.Execution,
    params: PyTree,
    input_ids: Int[Any, "1 L"],
    segment_ids: Int[Any, "1 L"],
    positions: Int[Any, "1 1"],
) -> Float[Any, " V"]:
    """Computes the distribution over the vocabulary at one position of one row."""
    model = network.Network(bert, execution, (heads.HeadSpec("mlm_head"),))
    batch = {
        "input_ids": input_ids,
        "segment_ids": segment_ids,
        "masked_lm_positions": positions,
    }
    scores = model.apply(params, batch, dropout_key=None)["mlm_scores"]
    return jax.nn.softmax(scores.logits()[0, 0])[: bert.vocab_size]


def load(
    folder: str | Path,
    *,
    dtype: str = "float32",
    allow_missing: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> Model:
    """Loads a model folder of any kind: a run, an export, Hugging Face's or Google's.

    Args:
      folder: its path, or the name of a model on the Hugging Face hub:
        `hf:owner/name` or `hf:owner/name@revision`, which is fetched into the hub's
        cache (extra `hub`).
      dtype: of activations and products: `float32` or `bfloat16`.
      allow_missing: parts or tensors that may be missing, by name or pattern.
      ignore: parts or tensors to leave out.

    Raises:
      InputError: the folder has no model, or an incomplete one; the hub does not
        have it, or refuses it.
      CheckpointError: a run has no usable checkpoint.
      StorageError: the hub does not answer, or the disk failed.
    """
    devices.leave_out()
    devices.warn_if_unused()
    execution = encoder.Execution(dtype)
    folder = hub.folder(folder)
    choice = weights.Choice(tuple(allow_missing), tuple(ignore))
    # With a choice of parts, the head may be ignored: read it as a plain encoder.
    if choice == weights.Choice() and answer.can_answer(folder):
        return _of_task(answer.load(folder, dtype), execution)
    found = checkpoints.open(folder).read(choice)
    if found.tokenizer is None:
        raise errors.InputError(f"{folder} has no tokenizer: put its vocab.txt there")
    bert = found.weights.config
    padded = network.pad_vocabulary(
        found.weights.params, execution.padded(bert.vocab_size)
    )
    return Model(
        found.tokenizer,
        bert,
        jax.tree.map(jnp.asarray, padded),
        found.max_seq_length,
        found.pooling,
        found.weights.labels,
        execution,
    )


def _of_task(result: answer.TaskModel, execution: encoder.Execution) -> Model:
    """Returns a fine-tuned model."""
    folder = result.task_folder
    return Model(
        folder.tokenizer,
        folder.bert,
        result.params,
        folder.settings.data.max_seq_length,
        result.pooling,
        folder.learned.labels,
        execution=execution,
        task=result,
    )
