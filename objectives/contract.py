"""What an objective is given, what it makes, and what it returns.

An objective is a module with one function, `make(config, vocabulary) -> Objective`. Everything it
touches is an array or one of the small records below, so that it can be read, tested and jitted
without a file, a device mesh or a Flax module in sight.
"""

import dataclasses
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

PADDING = -1  # the document number of padded places in a window


@dataclasses.dataclass(frozen=True, eq=False)
class Vocabulary:
    """The facts of a tokenizer that an objective may need; None where the tokenizer has none.

    size: number of ids that mean something (pieces and sentinels).
    table_size: rows of the embedding table, `size` rounded up for even sharding.
    pad, eos, unk, cls, sep, mask: ids.
    modes: ids of the mode tokens by name, {'R': 6, 'X': 7, 'S': 8}.
    sentinels: ids of the sentinels, the highest first (T5, section 3.1.4).
    word_start_V: bool, which pieces begin a word.
    bytes_V: int32, how many bytes of raw text each piece stands for; 0 for special ids.
    punctuation_V: bool, which pieces are nothing but punctuation; None: not known.
    log_frequency_V: float32, natural logarithm of each piece's share of the text, as a unigram
        tokenizer knows it; None where it does not.
    bos: the id that the tokenizer puts before every text (Llama's <s>); None: it puts none.
    """

    size: int
    table_size: int
    pad: int
    eos: int
    unk: int | None
    cls: int | None
    sep: int | None
    mask: int | None
    modes: dict[str, int] | None
    sentinels: tuple[int, ...] | None
    word_start_V: np.ndarray
    bytes_V: np.ndarray
    punctuation_V: np.ndarray | None = None
    log_frequency_V: np.ndarray | None = None
    bos: int | None = None


def require(vocabulary, **uses):
    """Raises ValueError when the tokenizer lacks an id: require(vocabulary, mask='masked_lm').

    Args:
        vocabulary: Vocabulary.
        uses: names of its fields, each with the objective that needs it.
    """
    for field, objective in uses.items():
        if getattr(vocabulary, field) is None:
            raise ValueError(
                f'{objective} needs a tokenizer with {_SHOWN.get(field, field)}, which this one '
                "has not: data.tokenizer='' trains one that has"
            )


def require_number(name, value, low=0.0, high=math.inf):
    """Raises ValueError unless value is a finite number from `low` to `high`.

    Args:
        name: its key in the section `objective`.
    """
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not number or not (math.isfinite(value) and low <= value <= high):
        span = f'from {low:g} to {high:g}' if high < math.inf else f'of at least {low:g}'
        raise ValueError(f'objective.{name}={value!r} must be a number {span}')


_SHOWN = {
    'cls': 'a [CLS] piece',
    'sep': 'a [SEP] piece',
    'mask': 'a [MASK] piece',
    'modes': 'the mode pieces [R], [X] and [S]',
    'sentinels': 'sentinels',
    'log_frequency_V': 'frequencies of its pieces (a unigram model)',
}


class Windows(NamedTuple):
    """Pieces of the corpus, as the data side yields them; it knows no objective. All int32.

    tokens_BxW: token ids, pad where `documents` is PADDING.
    sentences_BxW: sentence numbers, counted from 0 inside each window; PADDING where padded.
    documents_BxW: document numbers, unique in the split that is read; PADDING where padded.
    numbers_B: the window's number in the run; random choices of a row are keyed by it, so that
        they do not depend on the batch the row stands in.
    """

    tokens_BxW: jax.Array
    sentences_BxW: jax.Array
    documents_BxW: jax.Array
    numbers_B: jax.Array


def row_keys(key, numbers_B):
    """A key for each row, from its number in the run: its choices do not depend on its batch."""
    return jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers_B)


class Inputs(NamedTuple):
    """What one stack of the model reads; the model never looks for a token id.

    tokens_BxL: token ids.
    positions_BxL: position of each token for position embeddings; None: 0 .. L-1.
    segments_BxL: attention stays among equal numbers, 0 is padding; None: one segment, no padding.
    types_BxL: which segment embedding is added (BERT's A and B); None: type 0 or no types at all.
    prefix_B: tokens at the start of the row that all may see (prefix LM); None: no prefix.
    """

    tokens_BxL: jax.Array
    positions_BxL: jax.Array | None = None
    segments_BxL: jax.Array | None = None
    types_BxL: jax.Array | None = None
    prefix_B: jax.Array | None = None


class Batch(NamedTuple):
    """What the model reads and what it must predict.

    inputs: read by the encoder, or by the decoder of a decoder-only model.
    decoder_inputs: read by the decoder of an encoder-decoder model, else None.
    targets_BxK: token ids to predict.
    weights_BxK: float32, 0 where there is nothing to predict.
    places_BxK: which of the L places each target belongs to; None: target k belongs to place k.
    labels_B: the class of each row as a whole (is the second text the next one?), -1 where it has
        none; None: rows have no classes.
    seeds_B: uint32, for objectives whose loss draws at random from what a model says (ELECTRA's
        replacements): keys made from them depend on the row alone, not on the part of the batch
        that it is worked off in. None for the others.
    """

    inputs: Inputs
    decoder_inputs: Inputs | None
    targets_BxK: jax.Array
    weights_BxK: jax.Array
    places_BxK: jax.Array | None = None
    labels_B: jax.Array | None = None
    seeds_B: jax.Array | None = None


class Model(NamedTuple):
    """A model bound to its parameters; the last three where its config has such a head.

    hidden(batch, key=None) -> hidden_BxLxD; without a key the model runs without dropout.
    logits(hidden_BxKxD) -> logits_BxKxV, float32.
    classify(hidden_BxLxD) -> logits_BxC of the whole row, from its first place (BERT's pooler).
    score(hidden_BxLxD) -> one logit a place, BxL (ELECTRA's discriminator).
    project(hidden_BxLxD) -> BxLxP, the learned map to another model's width (distillation).
    """

    hidden: Callable
    logits: Callable
    classify: Callable | None = None
    score: Callable | None = None
    project: Callable | None = None


class Term(NamedTuple):
    """One term of a loss: coefficient x sum / weight, both summed over the whole global batch."""

    sum: jax.Array
    weight: jax.Array
    coefficient: float = 1.0


class Mean(NamedTuple):
    """A metric as a sum and its weight, so that means of parts combine to the mean of the whole."""

    sum: jax.Array
    weight: jax.Array


class Loss(NamedTuple):
    """What `Objective.loss` returns: terms that are trained on and metrics that are only shown.

    The weights of the terms must follow from the batch alone, never from the model's outputs:
    they are summed over the global batch before the gradients of its parts are accumulated.
    """

    terms: dict[str, Term]
    metrics: dict[str, Mean]


class Objective(NamedTuple):
    """An objective, made for one config and one vocabulary.

    window_length() -> W, the number of tokens of raw text that make one row.
    corrupt(key, windows) -> Batch, pure, jitted, static shapes, on the whole global batch.
    loss(models, batch, key) -> Loss; `models` maps each name of `models` to a Model, and the key
        is None in evaluation.
    models: the names of the models that the loss asks for, each with the fields of its config
        that the objective fixes ({'model': {'classes': 2}}). A recipe's `model` is the config of
        all of them; a section of the model's own name (`generator`) changes fields for it.
    frozen: those of them that are not trained (a teacher).
    shared: parameters that a model has not of its own: {'generator': ('discriminator',
        ('token_embedding', ...))}.
    stacks: what the batches are made for: ('encoder',), ('decoder',), ('encoder', 'decoder');
        None: any.
    cut: the `data.cut` that the windows must come with ('document': pairs of texts); None: any.
    projects_all: the loss asks for the logits of every place, not of the targets alone.
    prompt: how a model trained on it reads a text that it is to continue or to answer: 'causal';
        'prefix', in both directions; 'encoder', by the encoder, with an eos behind it; None: it
        was trained for neither.
    """

    window_length: Callable[[], int]
    corrupt: Callable[[jax.Array, Windows], Batch]
    loss: Callable[[dict[str, Model], Batch, jax.Array | None], Loss]
    models: dict[str, dict] = {'model': {}}  # noqa: RUF012
    frozen: tuple[str, ...] = ()
    shared: dict[str, tuple[str, tuple[str, ...]]] = {}  # noqa: RUF012
    stacks: tuple[str, ...] | None = None
    cut: str | None = None
    projects_all: bool = False
    prompt: str | None = None
