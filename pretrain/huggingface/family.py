"""What a family of the Hugging Face layout is: its config in both directions, its tensors' names.

A family is a table, not code: which key of its config.json is which field of TransformerConfig,
which fields it fixes, which keys must have which value, and the names of its modules. The same
table reads a config and says whether a model of ours can be written as one.
"""

import dataclasses
import math
import re
from collections.abc import Callable
from typing import NamedTuple

import jax

from pretrain.errors import UserError
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, init

# Fields that do not change what a trained model computes.
FREE = (
    'projection_width', 'initializer', 'stddev', 'position_stddev', 'residual_scale', 'dropout',
    'attention_dropout', 'dropout_inside', 'dropout_final', 'dropout_broadcast', 'dtype', 'remat',
    'unroll',
)  # fmt: skip

# transformers' names of the activations that we have, the one that is written first.
ACTIVATIONS = {
    'gelu_new': 'gelu',
    'gelu_pytorch_tanh': 'gelu',
    'gelu_fast': 'gelu',
    'gelu': 'gelu_erf',
    'gelu_python': 'gelu_erf',
    'relu': 'relu',
    'silu': 'silu',
    'swish': 'silu',
}


class Key(NamedTuple):
    """A key of config.json that is a field of ours.

    default: of transformers, where config.json leaves it out; a function takes the config.
    """

    field: str
    default: object = None


class Head(NamedTuple):
    """A class of transformers: the fields that its heads are, and whether names have the prefix."""

    name: str
    fields: dict
    prefixed: bool = True


class Family(NamedTuple):
    """One `model_type`.

    keys: {key of config.json: Key}.
    fixed: {field: value} for every field that neither a key nor a head decides.
    required: {key: value} that the computation here stands for; a missing key, or null, counts as
        it. tie_word_embeddings is asked of models with a vocabulary's head alone.
    aliases: {other key that transformers takes for it, and before it: key}.
    heads: Heads, the first that fits is taken; one that leaves fields out has a head of ours
        left out.
    prefix: before the names of the base model ('bert.'), '' for none.
    modules: {our module: their module}, or a function of TransformerConfig that says so; '{}'
        stands for the number of a layer; several of ours, parted by a space: a matrix that holds
        their outputs one behind the other.
    kernels_in_out: their layers' kernels are (in, out), as ours, not (out, in).
    roots: first parts of names outside the base model.
    left_out: {regular expression found in a name: why the tensor is not read}.
    copies: {regular expression of a name: the tensor it is a copy of}, compared and left out.
    find_heads: (names, fields) -> the fields that say which heads a checkpoint has.
    check: TransformerConfig -> why their class computes something else; None: it does not.
    read: (fields, config.json, names) -> fields, where a table does not do.
    write: (config.json, fields) -> config.json, the same the other way.
    """

    model_type: str
    keys: dict[str, Key]
    fixed: dict
    heads: tuple[Head, ...]
    modules: dict[str, str] | Callable
    required: dict = {}  # noqa: RUF012
    aliases: dict[str, str] = {}  # noqa: RUF012
    prefix: str = ''
    kernels_in_out: bool = False
    roots: tuple[str, ...] = ()
    left_out: dict[str, str] = {}  # noqa: RUF012
    copies: dict[str, str] = {}  # noqa: RUF012
    find_heads: Callable = lambda names, fields: {'token_head': True}
    check: Callable = lambda config: None
    read: Callable = lambda fields, config, names: fields
    write: Callable = lambda config, fields: config


class Unfit(Exception):
    """A model of ours is not one of this family; the text says in which field."""


class Tensor(NamedTuple):
    """A tensor of theirs and the parameters of ours that it holds.

    paths: of parameters; several: parts along the last axis of ours. layer: its number, or None.
    turned: theirs is (out, in), ours (in, out). shape: of theirs.
    """

    name: str
    paths: tuple[str, ...]
    layer: int | None
    turned: bool
    shape: tuple[int, ...]


def resolved(config):
    """The fields of a TransformerConfig, each in full: no 0 that stands for another number."""
    return dataclasses.asdict(config) | {
        'kv_heads': config.key_heads,
        'head_width': config.k,
        'feedforward_width': config.f,
        'embedding_width': config.e,
        'rotary_theta_local': config.rotary_theta_local or config.rotary_theta,
        'pooler': config.pooler or config.classes > 0,
    }


def idle(config):
    """Names of the fields that do not change what a model of this config computes."""
    names = list(FREE)
    if config.positions != 'learned':
        names += ['max_positions']
    if config.positions != 'rotary':
        names += ['rotary_theta']
    if config.positions != 'rotary' or not config.attention_window:
        names += ['rotary_theta_local']
    if config.positions != 'relative':
        names += ['relative_buckets', 'relative_distance']
    if not config.attention_window:
        names += ['global_every']
    if config.norm == 'rms':
        names += ['norm_bias']
    if not config.token_head:
        names += ['tied', 'scale_logits', 'logit_transform', 'logit_bias']
    return names


def read_config(family, config, names):
    """The fields of TransformerConfig that a checkpoint's config.json and tensors say.

    Args:
        family: Family. config: the parsed config.json.
        names: of its tensors, in full (see full_name).

    Raises:
        UserError: a key that is needed is missing, or says what is not supported.
    """
    config = config | {own: config[key] for key, own in family.aliases.items() if key in config}
    fields = dict(family.fixed)
    for key, (field, default) in family.keys.items():
        value = config.get(key)
        if value is None:
            value = _default(key, default, config)
        if value is None:
            raise UserError(f'config.json lacks {key!r}')
        _check_kind(key, field, value)
        fields[field] = _activation(key, value) if field == 'activation' else value
    fields = family.read(fields, config, names)
    fields |= family.find_heads(names, fields)
    required = dict(family.required)
    if not fields['token_head']:
        required.pop('tie_word_embeddings', None)
    if fields['decoder_layers']:
        required['is_causal'] = True
    for key, value in required.items():
        if config.get(key, value) not in (value, None):
            raise UserError(
                f'config.json says {key}={config[key]!r}, which is not supported: {value!r} is'
            )
    if config.get('quantization_config'):
        raise UserError('config.json has a quantization_config: convert weights without one')
    try:
        made = TransformerConfig(**fields)
    except TypeError:
        raise UserError('config.json holds a value of the wrong kind') from None
    reason = family.check(made)
    if reason:
        raise UserError(f'config.json: {reason}')
    return made


def fixed(*open_fields, **fields):
    """The defaults of TransformerConfig with some fields changed: what a family fixes.

    Args:
        open_fields: names of those that it does not fix. fields: those that are not the default.
    """
    plain = {f.name: f.default for f in dataclasses.fields(TransformerConfig)} | fields
    return {name: plain[name] for name in plain if name not in ('vocabulary', *open_fields)}


def _short(fields):
    """Fields in full -> with 0 where that means the same, as the defaults have it."""
    same = {
        'kv_heads': fields['heads'],
        'head_width': fields['width'] / fields['heads'],
        'embedding_width': fields['width'],
        'rotary_theta_local': fields['rotary_theta'],
    }
    return fields | {name: 0 for name, value in same.items() if fields[name] == value}


def _default(key, default, config):
    try:
        return default(config) if callable(default) else default
    except (TypeError, ZeroDivisionError):
        raise UserError(f'config.json: {key} does not follow from its other numbers') from None


def _check_kind(key, field, value):
    """Refuses a value that is not of the field's type."""
    kind = {f.name: f.type for f in dataclasses.fields(TransformerConfig)}[field]
    kinds = {int: (int,), float: (int, float), bool: (bool,)}.get(kind, (str,))
    if not isinstance(value, kinds) or (isinstance(value, bool) and kind is not bool):
        named = ' or '.join(k.__name__ for k in kinds)
        raise UserError(f'config.json says {key}={value!r}, which should be of type {named}')
    if kind is float and not math.isfinite(value):
        raise UserError(f'config.json says {key}={value!r}, which should be finite')
    if kind is int and value >= 2**31:
        raise UserError(f'config.json says {key}={value!r}, which should be below 2^31')


def _activation(key, value):
    if value not in ACTIVATIONS:
        raise UserError(
            f'config.json says {key}={value!r}, which is not one of {", ".join(ACTIVATIONS)}'
        )
    return ACTIVATIONS[value]


def write_config(family, config):
    """The config.json of a model of ours.

    Args:
        family: Family. config: TransformerConfig.

    Returns:
        (its dict, Head, names of the fields of ours that this head leaves out).

    Raises:
        Unfit: this family does not compute it.
    """
    reason = family.check(config)
    if reason:
        raise Unfit(reason)
    fields = resolved(config)
    head, left = _head(family, fields)
    decided = {key.field for key in family.keys.values()} | {*head.fields, *left, *idle(config)}
    short = _short(fields)
    for field, value in family.fixed.items():
        if field not in decided and short[field] != value:
            raise Unfit(f'model.{field}={fields[field]!r} and not {value!r}')
    written = {'model_type': family.model_type, 'architectures': [head.name]}
    for key, (field, _) in family.keys.items():
        value = getattr(config, field) if field in FREE else fields[field]
        if field == 'activation':
            value = next(name for name, ours in ACTIVATIONS.items() if ours == value)
        written[key] = value
    return family.write(written | family.required, fields), head, left


def _head(family, fields):
    reasons = []
    for head in family.heads:
        differing = [f for f, value in head.fields.items() if fields[f] != value]
        if not differing:
            return head, []
        reasons.append(f'model.{differing[0]}={fields[differing[0]]!r}')
    # A pooler that no class has beside the other heads is nothing that the model needs.
    for head in family.heads:
        rest = {f: value for f, value in head.fields.items() if f != 'pooler'}
        if head.fields.get('pooler') is False and all(fields[f] == rest[f] for f in rest):
            return head, ['pooler']
    raise Unfit(f'no class with these heads ({reasons[0]})')


def tensors(family, config, head=None):
    """Every Tensor of a model, in the order of our parameters.

    Args:
        family: Family. config: TransformerConfig.
        head: Head, whose names are made; None: names in full, with the prefix.
    """
    shapes = parameter_shapes(config)
    theirs = {}
    modules = family.modules(config) if callable(family.modules) else family.modules
    for ours, name in modules.items():
        parts = ours.split()
        theirs |= {part: (name, parts) for part in parts}
    found = {}
    for path, shape in shapes.items():
        parent, _, leaf = path.rpartition('/')
        if parent not in theirs:
            continue  # what a family has no place for: the caller says so
        name, parts = theirs[parent]
        turned = leaf == 'kernel' and not (family.kernels_in_out and '/layers/' in path)
        name += '.bias' if leaf == 'bias' else '.weight'
        if (head is None or head.prefixed) and not name.startswith(family.roots):
            name = family.prefix + name
        layers = shape[0] if '/layers/' in path else None
        shape = shape[1:] if layers else shape
        paths = tuple(f'{part}/{leaf}' for part in parts)
        shape = (*shape[:-1], sum(shapes[p][-1] for p in paths))
        shape = shape[::-1] if turned else shape
        for layer in range(layers) if layers else [None]:
            found[name.replace('{}', str(layer))] = Tensor(
                name.replace('{}', str(layer)), paths, layer, turned, tuple(shape)
            )
    return list(found.values())


def parameter_shapes(config):
    """{path: shape} of all parameters of a model of ours."""
    module = Transformer(config)
    shapes = jax.eval_shape(lambda: init(module, jax.random.key(0)))
    return {
        jax.tree_util.keystr(path, simple=True, separator='/'): leaf.shape
        for path, leaf in jax.tree_util.tree_flatten_with_path(shapes)[0]
    }


def full_name(family, name):
    """A tensor's name with the prefix of the base model, and as LayerNorms are named today."""
    name = re.sub(r'\.gamma$', '.weight', re.sub(r'\.beta$', '.bias', name))
    if family.prefix and not name.startswith((family.prefix, *family.roots)):
        return family.prefix + name
    return name
