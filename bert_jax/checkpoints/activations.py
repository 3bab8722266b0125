"""Names of activations in other libraries, and where one name means two functions.

`gelu` is x times the normal distribution function, by erf, in `transformers`, here, and
in Google's first code. Google's later TensorFlow 1 code, the TensorFlow 2 model garden
and keras-hub compute the tanh form instead, which `transformers` calls `gelu_new`.
"""

from bert_jax import errors
from bert_jax.model import config

# Names of transformers: ours.
NAMES = {
    **{name: name for name in config.ACTIVATIONS},
    "gelu_python": "gelu",
    "gelu_pytorch_tanh": "gelu_new",
    "gelu_python_tanh": "gelu_new",
    "gelu_fast": "gelu_new",
    "gelu_accurate": "gelu_new",
}
_APART = (
    "a value differs by up to 4.8e-4, and the outputs of many layers by more. Weights "
    "that were trained with "
    "the tanh form are exact after `python -m bert_jax.convert --hidden_act=gelu_new`"
)


def ours(name: str) -> str:
    """Returns our name of an activation that `transformers` knows by `name`.

    Raises:
      InputError: it is unknown here.

    >>> ours("gelu_pytorch_tanh")
    'gelu_new'
    """
    if name not in NAMES:
        raise errors.InputError(
            f"--hidden_act is {name!r}: use one of {', '.join(NAMES)}"
        )
    return NAMES[name]


def gelu_note(
    bert: config.BertConfig, kinds: tuple[str, ...], *, keras_hub: bool = True
) -> str:
    """Returns what to know of the activation in these formats; "" for nothing.

    Args:
      kinds: the formats that a model is read from and written to, of
        `exchange.model_folders.KINDS`.
      keras_hub: whether a folder of Hugging Face, which keras-hub reads, counts.
    """
    is_google = "tensorflow1" in kinds
    if bert.hidden_act == "gelu_new" and is_google:
        return (
            "gelu_new is the tanh form of gelu. Google's TensorFlow 1 code computes it "
            'by the name gelu and refuses this one: for that code, set "hidden_act": '
            '"gelu" in bert_config.json'
        )
    if bert.hidden_act != "gelu" or bert.model_type != "bert":
        return ""
    by_erf = "gelu is computed by erf here, as in transformers"
    if is_google:
        return (
            f"{by_erf}. Google's TensorFlow 1 code, the TensorFlow 2 model garden and "
            f"keras-hub compute its tanh form: {_APART}"
        )
    if keras_hub and "huggingface" in kinds:
        return (
            f"{by_erf}. keras-hub loads this folder, ignores hidden_act and computes "
            f"the tanh form: {_APART}"
        )
    return ""
