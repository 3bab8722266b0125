"""The pickles that PyTorch saves, read as tensors and nothing else.

A pickle is a program. `torch.load(weights_only=True)` runs only the words of it that
make tensors; what it refuses is refused, and what it loads is measured here, because a
few bytes can ask for a tensor of any size.
"""

import re
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from bert_jax import errors
from bert_jax.checkpoints import untrusted

# Tied weights stand under two or three names. More than this is no model.
_MOST_NAMES_FOR_A_BYTE = 8


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads a saved dictionary of tensors, in the order of the names, C-contiguous.

    Takes files in the zip format and the older pickles. Raises InputError when torch is
    not installed, and for a file that holds or asks for anything but such tensors.
    """
    try:
        import torch  # pyright: ignore[reportMissingImports]
    except ImportError:
        raise errors.missing_extra("torch", "torch") from None
    size = untrusted.size_of(path)
    _check_zip(path, size)
    if _is_tar(path):  # torch would make a folder to unpack it into
        raise untrusted.refusal(path, "it is a tar archive")
    try:
        with warnings.catch_warnings(action="ignore"):  # of older and damaged pickles
            state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a damaged pickle makes of the reader
        raise _unreadable(path, error) from None
    _check_state(path, state)
    _check_sizes(path, state, size)
    arrays = {name: _array(state[name]) for name in sorted(state)}
    for name, array in arrays.items():
        untrusted.check_array(path, name, array)
    return arrays


def _check_zip(path: Path, size: int) -> None:
    """Raises InputError for a zip file that unpacks to more than it is."""
    with path.open("rb") as file:
        if file.read(2) != b"PK":
            return
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        raise untrusted.refusal(path, f"it is damaged ({error})") from None
    if len({member.filename for member in members}) != len(members):
        raise untrusted.refusal(path, "a part of its archive stands twice")
    packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
    if packed or sum(member.file_size for member in members) > size:
        raise untrusted.refusal(path, "its archive unpacks to more than the file")


def _is_tar(path: Path) -> bool:
    try:
        tarfile.open(path, "r:").close()
    except (tarfile.TarError, ValueError, OSError, EOFError):
        return False
    return True


def _unreadable(path: Path, error: Exception) -> errors.InputError:
    """Returns the error for a pickle that is damaged or is more than tensors."""
    name = re.search(r"GLOBAL ([\w.]+)", str(error))
    if name is None:
        return untrusted.refusal(path, f"it is damaged ({type(error).__name__})")
    return untrusted.refusal(
        path,
        f"it asks for the program object {untrusted.quoted(name[1])}, "
        "and only tensors are read",
        "Export the weights as safetensors, or save its state_dict() alone",
    )


def _check_state(path: Path, state: Any) -> None:
    """Raises InputError unless all is plain tensors in memory under strings."""
    import torch  # pyright: ignore[reportMissingImports]

    if not isinstance(state, dict) or not state:
        what = "it holds no dictionary of tensors"
        raise untrusted.refusal(path, what, "Save the model's state_dict() alone")
    for name, tensor in state.items():
        if not isinstance(name, str):
            what = f"the name of a tensor is {untrusted.quoted(name)}"
        elif type(tensor) not in (torch.Tensor, torch.nn.Parameter):
            what = f"{untrusted.quoted(name)} is a {type(tensor).__name__}, no tensor"
        elif tensor.layout != torch.strided or tensor.device.type != "cpu":
            what = f"tensor {untrusted.quoted(name)} is sparse or has no values"
        elif _dtype(tensor) not in untrusted.DTYPES:
            what = f"tensor {untrusted.quoted(name)} has the dtype {tensor.dtype}"
        else:
            continue
        raise untrusted.refusal(path, what, "Save the model's state_dict() alone")


def _check_sizes(path: Path, state: dict[str, Any], size: int) -> None:
    """Raises InputError when the tensors need more bytes than the file can hold."""
    stores = [tensor.untyped_storage() for tensor in state.values()]
    stored = sum({store.data_ptr(): store.nbytes() for store in stores}.values())
    shown = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    if stored > size or shown > _MOST_NAMES_FOR_A_BYTE * size:
        what = f"its tensors need {max(stored, shown):,} bytes and it has {size:,}"
        raise untrusted.refusal(path, what)


def _dtype(tensor: Any) -> str:
    """Returns the name of a dtype, which torch and numpy share."""
    return str(tensor.dtype).removeprefix("torch.")


def _array(tensor: Any) -> np.ndarray:
    """Returns a tensor's values in C order; torch has no bfloat16 for numpy."""
    import torch  # pyright: ignore[reportMissingImports]

    tensor = tensor.detach().resolve_neg().contiguous()
    if tensor.dtype == torch.bfloat16:
        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    return tensor.numpy()
