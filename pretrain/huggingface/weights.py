"""Tensors by name from the files of a Hugging Face folder, one at a time, and back into one.

Headers are read at once, so that names and shapes are known before any tensor is; no file is ever
held in memory.
"""

import json
from pathlib import Path
from typing import NamedTuple

import ml_dtypes  # noqa: F401 (numpy then knows bfloat16)
import numpy as np
import safetensors
import safetensors.numpy

from pretrain.errors import UserError

SAFETENSORS, PICKLED = 'model.safetensors', 'pytorch_model.bin'
# As safetensors names them; counters and masks, which are left out by name, are whole numbers.
DTYPES = ('F64', 'F32', 'F16', 'BF16', 'I', 'U', 'BOOL')


class Stored(NamedTuple):
    """Where a tensor lies. reader: of its file. shape: tuple of ints."""

    reader: object
    shape: tuple[int, ...]


class Weights:
    """The tensors of a folder.

    names: {name: shape}. `read(name)` reads one tensor. pickled: from pytorch_model.bin.
    """

    def __init__(self, folder):
        """Opens the files and reads their headers.

        Args:
            folder: holds model.safetensors, or its shards and their index, or pytorch_model.bin.

        Raises:
            UserError: there are none, a shard is missing, a file is damaged.
        """
        folder = Path(folder)
        files, listed, self.pickled = _files(folder)
        self._stored = {}
        for path in files:
            reader = _Pickled(path) if self.pickled else _Safetensors(path)
            for name, shape in reader.shapes().items():
                if listed.get(name, path.name) == path.name:
                    if name in self._stored:
                        raise UserError(f'{str(folder)!r} holds the tensor {name!r} twice')
                    self._stored[name] = Stored(reader, shape)
        lost = sorted(set(listed) - set(self._stored))
        if lost:
            raise UserError(
                f'{str(folder / listed[lost[0]])!r} lacks the tensor {lost[0]!r} that the index '
                'lists in it: fetch it again'
            )
        self.names = {name: stored.shape for name, stored in self._stored.items()}

    def read(self, name):
        """The tensor of that name, a float32 numpy array of its own."""
        return self._stored[name].reader.read(name)


def _files(folder):
    """(paths of the files, {tensor: file} of an index, whether they are pickled)."""
    for name, pickled in ((SAFETENSORS, False), (PICKLED, True)):
        if (folder / name).is_file():
            return [folder / name], {}, pickled
        index = folder / f'{name}.index.json'
        if not index.is_file():
            continue
        try:
            listed = json.loads(index.read_text())['weight_map']
            names = sorted(set(listed.values()))
            if not all(isinstance(name, str) for name in names):
                raise ValueError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise UserError(f'{str(index)!r} is no index of shards: fetch it again') from None
        missing = [shard for shard in names if not (folder / shard).is_file()]
        if missing:
            raise UserError(
                f'{str(folder)!r} lacks the shard {missing[0]!r} ({len(names) - len(missing)} of '
                f'{len(names)} are there): fetch it'
            )
        return [folder / shard for shard in names], listed, pickled
    raise UserError(
        f'{str(folder)!r} holds no weights: neither {SAFETENSORS} nor {PICKLED}, nor an index of '
        'shards of one'
    )


class _Safetensors:
    """A safetensors file."""

    def __init__(self, path):
        self.path = path
        try:
            self.file = safetensors.safe_open(path, framework='numpy')
        except (safetensors.SafetensorError, OSError) as error:
            raise UserError(
                f'{str(path)!r} is no whole safetensors file ({error}): fetch it again'
            ) from None

    def shapes(self):
        shapes = {}
        for name in self.file.keys():  # noqa: SIM118 (no mapping)
            part = self.file.get_slice(name)
            if not part.get_dtype().startswith(DTYPES):
                raise UserError(
                    f'{str(self.path)!r}: the tensor {name!r} is of type {part.get_dtype()}: '
                    'convert weights that are not quantised'
                )
            shapes[name] = tuple(part.get_shape())
        return shapes

    def read(self, name):
        array = self.file.get_tensor(name)
        if array.dtype.kind in 'iub':
            raise UserError(
                f'{str(self.path)!r}: {name!r} is of type {array.dtype}: convert weights that are '
                'not quantised'
            )
        with np.errstate(over='ignore'):  # what overflows is found to be not finite
            return np.asarray(array, np.float32)


class _Pickled:
    """A file that torch.save wrote; its tensors are mapped into memory where its form allows."""

    def __init__(self, path):
        try:
            import torch
        except ImportError:
            raise UserError(
                f'reading {str(path)!r} needs torch: pip install -e .[peers], or give a folder '
                f'with {SAFETENSORS}'
            ) from None
        self.path = path
        try:
            try:
                self.tensors = torch.load(path, 'cpu', weights_only=True, mmap=True)
            except RuntimeError as error:
                if 'mmap' not in str(error):
                    raise
                self.tensors = torch.load(path, 'cpu', weights_only=True)  # the form before 1.6
        except Exception as error:  # pickles fail in many ways
            reason = str(error).partition('\n')[0]
            raise UserError(
                f'{str(path)!r} cannot be read as weights alone ({reason}): fetch it again, or '
                f'a folder with {SAFETENSORS}'
            ) from None
        if not isinstance(self.tensors, dict):
            raise UserError(f'{str(path)!r} holds no tensors by name')
        for name, tensor in self.tensors.items():
            plain = isinstance(name, str) and isinstance(tensor, torch.Tensor)
            if not plain or tensor.layout != torch.strided or tensor.device.type != 'cpu':
                raise UserError(
                    f'{str(path)!r} holds {name!r}, which is no plain tensor: save the state_dict '
                    'of the model alone'
                )

    def shapes(self):
        return {name: tuple(tensor.shape) for name, tensor in self.tensors.items()}

    def read(self, name):
        tensor = self.tensors[name].detach()
        if not tensor.is_floating_point():
            raise UserError(
                f'{str(self.path)!r}: {name!r} is of type {tensor.dtype}: convert weights that are '
                'not quantised'
            )
        return tensor.float().numpy().copy()


def write(path, tensors):
    """Writes a safetensors file as transformers does.

    Args:
        path: of the file.
        tensors: {name: contiguous float32 numpy array}; they are written from where they lie.
    """
    safetensors.numpy.save_file(tensors, path, metadata={'format': 'pt'})
