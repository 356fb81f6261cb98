"""A folder in the Hugging Face layout -> a config of ours and parameters; every tensor accounted.

Memory: the parameters, which are made once at their full size, and one tensor that is being copied
into them.
"""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np
from flax import traverse_util

from pretrain.errors import UserError
from pretrain.huggingface import family as families
from pretrain.huggingface.families import FAMILIES
from pretrain.huggingface.weights import Weights
from pretrain.model.config import TransformerConfig


class Model(NamedTuple):
    """What a folder holds.

    raw: its config.json. family: of families.FAMILIES. config: TransformerConfig.
    params: our tree of float32 numpy arrays. used: number of tensors read.
    left_out: {name of a tensor: why it was not read}. pickled: from pytorch_model.bin.
    """

    raw: dict
    family: families.Family
    config: TransformerConfig
    params: dict
    used: int
    left_out: dict[str, str]
    pickled: bool


def read_json(path):
    """The JSON object in a file.

    Raises:
        UserError: there is no such file, or it holds none.
    """
    try:
        value = json.loads(Path(path).read_text())
    except OSError as error:
        raise UserError(f'cannot read {str(path)!r}: {error.strerror}') from None
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise UserError(f'{str(path)!r} holds no JSON object: fetch it again')
    return value


def read_raw(folder):
    """The config.json of a folder, as a dict.

    Raises:
        UserError: there is no such folder, or its config.json is missing, damaged, or of a
            model_type that is not supported.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f'there is no folder {str(folder)!r}')
    if not (folder / 'config.json').is_file():
        raise UserError(f'{str(folder)!r} holds no config.json: give the folder of a checkpoint')
    raw = read_json(folder / 'config.json')
    if raw.get('model_type', next(iter(FAMILIES))) not in list(FAMILIES):
        raise UserError(
            f'{str(folder)!r} is of model_type {raw["model_type"]!r}, which is not supported: '
            f'{", ".join(FAMILIES)} are'
        )
    return raw


def read_model(folder, progress=lambda names: names):
    """Reads a folder.

    Args:
        folder: holds config.json and the weights.
        progress: wraps the names of the tensors as they are read (tqdm).

    Returns:
        Model.

    Raises:
        UserError: no or another architecture; a tensor is unknown, missing or of another shape;
            a file is missing or damaged.
    """
    folder, raw = Path(folder), read_raw(folder)
    weights = Weights(folder)
    family = _family(folder, raw, weights.names)
    stored = {}
    for name in weights.names:
        full = families.full_name(family, name)
        if full in stored:
            raise UserError(
                f'{str(folder)!r} holds {stored[full]!r} and {name!r}, which are one tensor: '
                'remove one'
            )
        stored[full] = name
    try:
        config = families.read_config(family, raw, stored)
    except UserError as error:
        raise UserError(f'{str(folder)!r}: {error}') from None
    wanted = {tensor.name: tensor for tensor in families.tensors(family, config)}
    _take_copies_for_missing(family, wanted, stored)
    left_out = _left_out(folder, family, wanted, stored, weights)
    _check_shapes(folder, wanted, stored, weights)
    _check_copies(folder, family, left_out, stored, weights)

    leaves = {}
    for name in progress(list(wanted)):
        tensor = wanted[name]
        array = weights.read(stored[name])
        if not np.isfinite(array).all():
            raise UserError(
                f'{str(folder)!r}: {stored[name]!r} holds numbers that are not finite in float32'
            )
        _put(leaves, config, tensor, array.T if tensor.turned else array)
    params = traverse_util.unflatten_dict(leaves, sep='/')
    raw = raw | {'model_type': family.model_type}
    return Model(raw, family, config, params, len(wanted), left_out, weights.pickled)


def _family(folder, raw, names):
    """The Family that config.json names, or in files from before it did, the tensors' names."""
    if 'model_type' in raw:
        return FAMILIES[raw['model_type']]
    for family in FAMILIES.values():
        if family.prefix and all(n.startswith((family.prefix, *family.roots)) for n in names):
            return family
    raise UserError(
        f"{str(folder)!r}: its config.json has no model_type, and its tensors' names do not tell: "
        f'add one of {", ".join(FAMILIES)}'
    )


def _copied(family, name):
    """The name of the tensor that `name` is a copy of, or None."""
    return next((o for pattern, o in family.copies.items() if re.search(pattern, name)), None)


def _take_copies_for_missing(family, wanted, stored):
    """Some files hold the copy alone: it then stands for the tensor."""
    for name in [n for n in stored if n not in wanted]:
        original = _copied(family, name)
        if original in wanted and original not in stored:
            stored[original] = stored.pop(name)


def _left_out(folder, family, wanted, stored, weights):
    """{name: reason} of the tensors that are not read; UserError for one that nobody knows."""
    reasons = {}
    for name, own in stored.items():
        if name in wanted:
            continue
        original = _copied(family, name)
        if original:
            reasons[name] = f'a copy of {original}'
            continue
        reason = next((r for p, r in family.left_out.items() if re.search(p, name)), None)
        if reason is None:
            raise UserError(
                f'{str(folder)!r}: the tensor {own!r} {weights.names[own]} has no place in a '
                f'{family.model_type} with this config.json: is it of another architecture?'
            )
        reasons[name] = reason
    return reasons


def _check_shapes(folder, wanted, stored, weights):
    missing = [name for name in wanted if name not in stored]
    if missing:
        more = f' and {len(missing) - 1} more' if len(missing) > 1 else ''
        raise UserError(
            f'{str(folder)!r} lacks the tensor {missing[0]!r} {wanted[missing[0]].shape}{more}: '
            'its config.json says that there are such'
        )
    for name, tensor in wanted.items():
        shape = weights.names[stored[name]]
        if shape != tensor.shape:
            raise UserError(
                f'{str(folder)!r}: {stored[name]!r} is {shape}, and by config.json it should be '
                f'{tensor.shape}'
            )


def _check_copies(folder, family, left_out, stored, weights):
    for name in left_out:
        original = _copied(family, name)
        if original is None:
            continue
        if not np.array_equal(weights.read(stored[name]), weights.read(stored[original])):
            raise UserError(
                f'{str(folder)!r}: {name!r} differs from {original!r}, and by config.json it is '
                'a copy of it (tie_word_embeddings)'
            )


def _put(leaves, config, tensor, array):
    """Copies a tensor, turned as ours, into the leaves that it belongs to."""
    parts = np.split(array, _ends(config, tensor, array.shape[-1]), axis=-1)
    for path, part in zip(tensor.paths, parts):
        if tensor.layer is None:
            leaves[path] = np.ascontiguousarray(part)
            continue
        if path not in leaves:
            layers = getattr(config, f'{path.partition("/")[0]}_layers')
            leaves[path] = np.empty((layers, *part.shape), np.float32)
        leaves[path][tensor.layer] = part


def _ends(config, tensor, width):
    """Where the parts of a fused matrix end: queries, and as many keys as values."""
    if len(tensor.paths) == 1:
        return []
    queries, keys = config.heads * config.k, config.key_heads * config.k
    return [queries, queries + keys] if len(tensor.paths) == 3 else [width // 2]
