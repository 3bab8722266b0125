"""Model folders of any format, opened by one function.

    folder = checkpoints.open("runs/demo")  # or "hf:owner/name", or a file of weights
    folder.config.hidden_size               # reads no weights
    model = folder.read()                   # weights, tokenizer, pooling, report

The format is detected once, from the files: the workdir of a run (of a fine-tuning run:
its best model), an export of ours, a folder of Hugging Face's, or a checkpoint of
Google's TensorFlow 1 code.
"""

import dataclasses
import functools
from pathlib import Path

from bert_jax import errors
from bert_jax.checkpoints import (
    huggingface,
    native,
    run_folder,
    sentence_encoder,
    tensorflow1,
    tensors,
)
from bert_jax.checkpoints.weights import (
    CONVERT,
    WHOLE,
    Choice,
    Described,
    ModelFiles,
    Report,
    Weights,
    matches,
)
from bert_jax.foundation import hub
from bert_jax.model import config
from bert_jax.text.tokenizer import Tokenizer

_TOKENIZER_FILES = ("vocab.txt", "tokenizer.json", "spiece.model", "vocab.json")


@dataclasses.dataclass(frozen=True, eq=False)
class LoadedModel:
    """A model that was read from a folder.

    Attributes:
      format: `workdir`, `bert_jax`, `huggingface` or `tensorflow1`.
      weights: architecture, parameters and labels.
      tokenizer: None if the folder has none.
      report: which parameter was read from which tensor.
      max_seq_length: the longest sequence that the model takes, in tokens.
      pooling: how its token vectors become a sentence vector.
      step: of the pretraining run that the model is from; None for other models.
    """

    format: str
    weights: Weights
    tokenizer: Tokenizer | None
    report: Report
    max_seq_length: int
    pooling: sentence_encoder.Pooling
    step: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class ModelFolder:
    """A model in its folder. Each part is read when it is asked for.

    Attributes:
      source: the folder or the name of the hub, as it was given.
      root: the folder of the model; of a fine-tuning run, that of its best model.
      files: its weights and config, by the class of the format.
    """

    source: str
    root: Path
    files: ModelFiles

    @property
    def format(self) -> str:
        """The name of the format, as in `LoadedModel`."""
        return self.files.format

    @functools.cached_property
    def _described(self) -> Described:
        return self.files.describe()

    @property
    def config(self) -> config.BertConfig:
        """The architecture; reads no weights."""
        return self._described.bert

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the classes; reads no weights."""
        return self._described.labels

    @property
    def tokenizer_folder(self) -> Path:
        """Where the tokenizer is."""
        return self.files.tokenizer_folder

    @property
    def is_task(self) -> bool:
        """Whether the model was fine-tuned by this package."""
        return (self.root / native.TASK).is_file()

    @property
    def head(self) -> str:
        """The part that is the head of a task, or "" if there is none."""
        return self.files.head

    @functools.cached_property
    def task(self) -> native.TaskFolder | None:
        """The fine-tuned model with what its task knows; None if it is not one."""
        return native.read_task(self.root) if self.is_task else None

    @functools.cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer.

        Raises:
          InputError: the folder has none, or it is damaged.
        """
        return Tokenizer.load(self.tokenizer_folder, require_mask=False)

    def weights(self, choice: Choice = WHOLE) -> tuple[Weights, Report]:
        """Reads the parameters.

        Raises:
          InputError: something is missing, left over, damaged or does not fit.
          CheckpointError: a run has no usable checkpoint.
        """
        given, report = self.files.weights(choice)
        return native.on_scale(self.files.folder, given, report)

    def read(
        self,
        choice: Choice = WHOLE,
        *,
        needs_tokenizer: bool = True,
    ) -> LoadedModel:
        """Reads the whole model.

        Raises:
          InputError: as `weights`, or the tokenizer is missing or does not fit.
          CheckpointError: a run has no usable checkpoint.
        """
        given, report = self.weights(choice)
        tokenizer = None
        if needs_tokenizer:
            tokenizer = _tokenizer(self.tokenizer_folder, given, choice)
        pooling, longest = self._pooling(given)
        return LoadedModel(
            self.format,
            given,
            tokenizer,
            report,
            longest,
            pooling,
            self.files.step,
        )

    def _pooling(self, given: Weights) -> tuple[sentence_encoder.Pooling, int]:
        """Returns how a model pools its tokens, and its longest sequence."""
        longest = given.config.max_length
        if self.is_task:
            settings, *_ = native.read_record(self.root)
            pooling = native.task_pooling(settings, given.config, given.params)
            stated = settings.data.max_seq_length
            pooling = pooling or sentence_encoder.Pooling()
        else:
            pooling = sentence_encoder.read(self.root)
            stated = pooling.max_seq_length or self.files.max_seq_length
            if pooling.is_sentence_encoder:
                pooling = dataclasses.replace(pooling, max_seq_length=stated)
        try:
            pooling.width(given.config.hidden_size)
        except errors.InputError as error:
            raise errors.InputError(f"{self.root}: {error}") from None
        return pooling, min(longest, stated or longest)


def open(path: str | Path) -> ModelFolder:
    """Opens a model folder of any format, or one file of its weights.

    Args:
      path: the folder or file, or the name of a model on the hub, `hf:owner/name`.

    Raises:
      InputError: it is missing, or holds no model; the hub does not have it.
      StorageError: the hub does not answer.
    """
    given = hub.folder(path)
    root = native.best(given) or given
    inside = sentence_encoder.transformer_folder(root) if root.is_dir() else root
    files = _files(inside)
    return ModelFolder(str(path), root if root.is_dir() else files.folder, files)


def _files(path: Path) -> ModelFiles:
    """Detects the format."""
    if not path.is_dir():
        return _single_file(path)
    if (path / native.CONFIG).is_file():
        return native.BertJaxFiles(path)
    if tensors.has_weights(path):
        return huggingface.HuggingFaceFiles(path)
    if (path / tensorflow1.CONFIG).is_file():
        return tensorflow1.TensorFlow1Files(path)
    begun = all((path / x).exists() for x in (run_folder.TOKENIZER, run_folder.CONFIG))
    if begun or (path / run_folder.CHECKPOINTS).is_dir():
        return run_folder.RunFiles(path)
    if refused := tensors.other_weights(path):
        raise refused
    raise errors.InputError(
        f"{path} holds no model: expected checkpoints/ of a run, {native.PARAMETERS}, "
        f"{' or '.join(tensors.WEIGHTS)}, or {tensorflow1.CONFIG} with a checkpoint of "
        "TensorFlow 1"
    )


def _single_file(path: Path) -> ModelFiles:
    """Detects the format of a file of weights, or of the prefix of a checkpoint."""
    is_index = path.suffix == ".index"
    index = path if is_index else path.with_name(f"{path.name}.index")
    if index.is_file():
        return tensorflow1.TensorFlow1Files(path)
    if path.is_file() and path.name in (native.PARAMETERS, native.CONFIG):
        return native.BertJaxFiles(path)
    refused = tensors.other_format(path) if path.is_file() else None
    if refused:
        raise refused
    if path.is_file() and path.suffix in (".safetensors", ".bin", ".json"):
        return huggingface.HuggingFaceFiles(path)
    wanted = "give the folder of a model, or a file of weights"
    if not path.exists():
        raise errors.InputError(
            f"{path} does not exist: {wanted}, or {hub.suggestion(path)}"
        )
    raise errors.InputError(f"{path} is not a file of weights: {wanted}")


def _tokenizer(folder: Path, given: Weights, choice: Choice) -> Tokenizer | None:
    """Loads the tokenizer of a folder; its size must be that of the embeddings."""
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        if matches("tokenizer", choice.allow_missing):
            return None
        raise errors.InputError(
            f"{folder} has no tokenizer (vocab.txt, tokenizer.json or spiece.model): "
            "put it there, or convert the weights without it: "
            f"{CONVERT} --allow_missing=tokenizer"
        )
    # Some sentence encoders have no mask; its users check for it.
    tokenizer = Tokenizer.load(folder, require_mask=False)
    rows = given.config.vocab_size
    if tokenizer.vocab_size != rows:
        fits = tokenizer.vocab_size < rows
        if fits and matches("vocab_rows", choice.ignore):
            return tokenizer
        advice = "give the vocabulary that belongs to these weights"
        if fits:
            command = f"{CONVERT} --ignore=vocab_rows"
            advice += f", or if the table is padded, cut it: {command}"
        raise errors.InputError(
            f"{folder}: the vocabulary has {tokenizer.vocab_size} tokens, and the "
            f"embedding table {rows} rows: {advice}"
        )
    return tokenizer
