"""What can go wrong, as exceptions that carry the exit code of the command.

A leaf module that every room may import: an error that a user can cause is one
message: what is wrong, where (file, line or record) and what to do. `setting` writes
the settings that it names as the command at hand has them.
"""

import contextlib
from collections.abc import Generator, Mapping
from contextvars import ContextVar


class BertJaxError(Exception):
    """A failure with a message for the user and an exit code for the shell."""

    exit_code = 1


class InputError(BertJaxError):
    """Bad input or configuration (exit code 2)."""

    exit_code = 2


class SettingError(InputError):
    """An example that does not go with a setting of its task.

    Training can change the setting; whoever uses the trained model has no such setting.

    Attributes:
      problem: what is wrong, and where.
      advice: how to fix it in training.
      later: how to fix it with a trained model; "" takes training it again.
    """

    def __init__(self, problem: str, advice: str, later: str = "") -> None:
        super().__init__(f"{problem}: {advice}")
        self.problem, self.advice, self.later = problem, advice, later

    def of_trained_model(self) -> InputError:
        """Returns the error for whoever uses the trained model."""
        later = self.later or (
            "the model was trained with this setting. Change the example, or train "
            f"again with python -m bert_jax.finetune: {self.advice}"
        )
        return InputError(f"{self.problem}: {later}")


class CheckpointError(BertJaxError):
    """No usable checkpoint (exit code 3)."""

    exit_code = 3


class NotFiniteError(BertJaxError):
    """A loss or a gradient is not finite (exit code 4)."""

    exit_code = 4


class StorageError(BertJaxError):
    """The disk or the network failed (exit code 5)."""

    exit_code = 5


class Stopped(BertJaxError):
    """A signal stopped the run with everything saved (exit code 75)."""

    exit_code = 75


_flags: ContextVar[Mapping[str, str] | None] = ContextVar("_flags", default=None)


def setting(key: str, value: str = "") -> str:
    """Returns a setting for a message, as the user of this command writes it.

    That is the config key, or the flag inside of `naming_flags`.

    >>> setting("data.repair"), setting("data.columns.id", "none")
    ('data.repair', 'data.columns.id=none')
    """
    name = (_flags.get() or {}).get(key, key)
    return f"{name}={value}" if value else name


@contextlib.contextmanager
def naming_flags(flags: Mapping[str, str]) -> Generator[None, None, None]:
    """Makes messages name the flags of a command that has no config, by config key."""
    token = _flags.set(flags)
    try:
        yield
    finally:
        _flags.reset(token)


def missing_extra(module: str, extra: str) -> InputError:
    """Returns the error for an optional dependency that is not installed.

    >>> print(missing_extra("jieba", "zh"))
    jieba is not installed. Install it with: pip install "bert_jax[zh]"
    """
    return InputError(
        f'{module} is not installed. Install it with: pip install "bert_jax[{extra}]"'
    )
