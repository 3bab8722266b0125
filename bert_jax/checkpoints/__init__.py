"""Models in folders, ours and other people's: one function opens them all."""

from bert_jax.checkpoints.folders import LoadedModel as LoadedModel
from bert_jax.checkpoints.folders import ModelFolder as ModelFolder
from bert_jax.checkpoints.folders import open as open
