"""Span corruption: an encoder reads a text with gaps, a decoder says what stood in them.

T5 (Raffel et al. 2020, sections 3.1.4 and 3.3). An objective of this family is a noise mask
(noise_masks.py), an encoding of the inputs and one of the targets (encodings.py), so the paper's
other objectives are lines of configuration:

    span corruption       noise='spans'   inputs='sentinels'       targets='sentinels'
    i.i.d. denoising      noise='iid'     inputs='sentinels'       targets='sentinels'
    BERT-style            noise='iid'     inputs='mask_or_random'  targets='full'
    MASS-style            noise='iid'     inputs='mask'            targets='full'
    dropped tokens        noise='iid'     inputs='drop'            targets='noise'
    deshuffling           noise='all'     inputs='shuffle'         targets='full'
    prefix LM             noise='prefix'  inputs='drop'            targets='noise'

Departures from the paper and its code: a text so short that it would have no span has one; of an
i.i.d. mask with more runs than there are sentinels the last runs stay kept text, where T5 would
go on into ordinary ids; a rolled mask has room for the one sentinel more that it may need; a
prefix LM flags what follows the prefix as noise, not the prefix.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract, encodings, losses, noise_masks

NOISES = ('spans', 'iid', 'prefix', 'all')


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: `inputs_length` and `targets_length`, static lengths
            with EOS (T5: 512; targets 0: what the arithmetic gives, 114); `noise`, one of NOISES;
            `density`, share of noise tokens (0.15), and `mean_span`, tokens a span (3), where the
            noise has them; `inputs` and `targets`, names of encodings.INPUTS and TARGETS; `roll`,
            turn the mask by a random number of places; `layout`, a name of encodings.LAYOUTS;
            `z_loss`, coefficient of (log Z)^2 (T5: 1e-4).
        vocabulary: contract.Vocabulary.

    Returns:
        contract.Objective. Metrics: accuracy. The window is the longest text whose inputs have
        room; with i.i.d. noise, targets that have none are trimmed.

    Raises:
        ValueError: an unknown name, numbers that no text can satisfy, too few sentinels.
    """
    encodings.check_name('noise', config.noise, NOISES)
    encodings.check_name('inputs', config.inputs, encodings.INPUTS)
    encodings.check_name('targets', config.targets, encodings.TARGETS)
    encodings.check_name('layout', config.layout, encodings.LAYOUTS)
    contract.require_number('z_loss', config.z_loss)
    if config.noise in ('spans', 'iid'):
        check_density(config.density)
    if config.noise == 'spans':
        check_mean_span(config.mean_span)
    window, sizes = _lengths(config)
    if config.noise == 'spans':
        check_spans(window, config.density, config.mean_span)
    runs = _check_sentinels(config, window, vocabulary)
    pieces = encodings.pieces(vocabulary)
    mask = _mask_function(config, window)
    # A text in two parts, each with its EOS, is never longer than this.
    parted = (config.inputs, config.targets) == ('drop', 'noise')
    row_length = min(window + 2, sum(sizes)) if parted else None

    def corrupt_row(key, tokens_W, length):
        mask_key, roll_key, input_key = jax.random.split(key, 3)
        noise_W = mask(mask_key, window, length)
        if config.roll:
            noise_W = noise_masks.roll(roll_key, noise_W, length)
        if runs:
            noise_W = noise_masks.first_runs(noise_W, runs)
        names = config.inputs, config.targets
        return encodings.encode(input_key, names, tokens_W, noise_W, length, sizes, pieces)

    def corrupt(key, windows):
        keys_B = contract.row_keys(key, windows.numbers_B)
        lengths_B = jnp.sum(windows.documents_BxW != contract.PADDING, axis=1)
        inputs, targets = jax.vmap(corrupt_row)(keys_B, windows.tokens_BxW, lengths_B)
        return encodings.lay_out(inputs, targets, config.layout, vocabulary.pad, row_length)

    def loss(models, batch, key):
        model = models['model']
        z_loss = 0.0 if key is None else config.z_loss
        return losses.predict_targets(model, model.hidden(batch, key), batch, z_loss)

    stacks = encodings.LAYOUTS[config.layout]
    prompt = 'encoder' if config.layout == 'encoder_decoder' else None
    return contract.Objective(lambda: window, corrupt, loss, stacks=stacks, prompt=prompt)


def lengths(inputs_length, density, mean_span):
    """The raw text that makes inputs of a wanted length, of unique sentinels on both sides.

    Args:
        inputs_length: tokens of the inputs, the EOS included.
        density: share of noise tokens. mean_span: tokens a span.

    Returns:
        (raw, noise, spans, targets_length): (568, 85, 28, 114) for 512, 0.15 and 3. At density
        0.5 a text whose targets would be longer than its inputs is one token shorter, as in T5.

    Raises:
        ValueError: the inputs have no room for a kept token and a noise token.
    """

    def inputs(raw):
        noise, spans = noise_masks.span_counts(raw, density, mean_span)
        return int(raw - noise + spans + 1)

    raw = _longest(inputs_length, inputs)
    noise, spans = noise_masks.span_counts(raw, density, mean_span)
    targets_length = int(noise + spans + 1)
    if density == 0.5 and targets_length > inputs(raw):
        raw, targets_length = raw - 1, targets_length - 1
        noise, spans = noise_masks.span_counts(raw, density, mean_span)
    return raw, int(noise), int(spans), targets_length


def check_density(density):
    """Raises ValueError unless 0 < density < 1."""
    if not 0 < density < 1:
        raise ValueError(f'density={density} must lie between 0 and 1: T5 has 0.15')


def check_mean_span(mean_span):
    """Raises ValueError unless mean_span >= 1."""
    if not (mean_span >= 1 and math.isfinite(mean_span)):
        raise ValueError(f'mean_span={mean_span} must be at least 1 token: T5 has 3')


def check_spans(window, density, mean_span):
    """Raises ValueError when a window cannot hold as many spans as its noise makes."""
    noise = min(max(round(window * density), 1), window - 1)
    spans, kept = round(noise / mean_span), window - noise
    if spans > min(noise, kept):
        raise ValueError(
            f'density={density} and mean_span={mean_span} make {spans} spans of {noise} noise '
            f'tokens, but only {kept} kept tokens can stand between them: lower the density or '
            'raise mean_span'
        )


def _longest(inputs_length, inputs):
    """The largest number of raw tokens whose inputs(raw) fit; no raw text has inputs > raw + 1."""
    raw = inputs_length - 1
    while inputs(raw + 1) <= inputs_length:
        raw += 1
    if raw < 2:
        raise ValueError(
            f'inputs_length={inputs_length} has no room for a kept token and a noise token with '
            f'its EOS: set at least {inputs(2)}'
        )
    return raw


def _lengths(config):
    """(window, (I, K)): the window and the static lengths of inputs and targets."""

    def inputs(raw):
        return _most_emitted(config, config.inputs, raw, noise_side=False) + 1

    def targets(raw):
        return _most_emitted(config, config.targets, raw, noise_side=True) + 1

    plain = config.noise == 'spans' and not config.roll
    if plain and (config.inputs, config.targets) == ('sentinels', 'sentinels'):
        window, *_, needed = lengths(config.inputs_length, config.density, config.mean_span)
    else:
        window = _longest(config.inputs_length, inputs)
        needed = targets(window)
    size = config.targets_length or needed
    if config.targets_length and (size < targets(2) or (config.noise != 'iid' and size < needed)):
        raise ValueError(
            f'targets_length={size} is too short: inputs_length={config.inputs_length} is made '
            f'of {window} raw tokens, whose targets need {needed}; set 0 for that'
        )
    return window, (config.inputs_length, size)


def _most_emitted(config, encoding, raw, noise_side):
    """The most tokens that an encoding makes of `raw` tokens or fewer, without the EOS."""
    if encoding not in ('sentinels', 'drop', 'noise'):
        return raw
    if config.noise == 'spans':
        noise, spans = noise_masks.span_counts(raw, config.density, config.mean_span)
        own = int(noise) if noise_side else int(raw - noise)
        # Rolling may cut one run in two.
        return min(own + int(spans) + config.roll, raw) if encoding == 'sentinels' else own
    if config.noise == 'prefix' and encoding != 'sentinels':
        return raw - 1
    return raw  # there may be no noise at all, or nothing else


def _check_sentinels(config, window, vocabulary):
    """Raises ValueError when sentinels are lacking; returns the most runs of noise, or None."""
    used = {config.inputs, config.targets}
    if not used & {'sentinels', 'mask', 'mask_or_random'}:
        return None
    check = functools.partial(
        encodings.check_sentinels, vocabulary=vocabulary, objective='span_corruption'
    )
    if 'sentinels' not in used:
        check(1, mend='it marks noise with the first of them')
        return None
    if config.noise == 'spans':
        _, spans = noise_masks.span_counts(window, config.density, config.mean_span)
        check(
            int(spans) + config.roll,
            mend=f'shorten inputs_length={config.inputs_length} or raise '
            f'mean_span={config.mean_span}',
        )
        return None
    if config.noise != 'iid':
        check(1 + config.roll, mend='train a tokenizer that has more')
        return None
    # Four standard deviations above the mean, and one for a text that begins with kept tokens
    # and ends with them.
    mean = window * config.density * (1 - config.density)
    needed = min(math.ceil(mean + 4 * math.sqrt(mean)), window // 2 + 1) + 1
    mend = f'shorten inputs_length={config.inputs_length} or lower density={config.density}'
    check(needed, mend=mend)
    return len(vocabulary.sentinels) - 1


def _mask_function(config, window):
    """mask(key, window, length) -> noise_W."""
    if config.noise == 'iid':
        return functools.partial(noise_masks.independent, density=config.density)
    if config.noise != 'spans':
        names = {'prefix': noise_masks.after_prefix, 'all': noise_masks.everything}
        return names[config.noise]
    counts = noise_masks.span_counts(np.arange(window + 1), config.density, config.mean_span)
    noise_by_length, spans_by_length = map(jnp.asarray, counts)
    most_spans = int(counts[1].max())

    def mask(key, window, length):
        noise, spans = noise_by_length[length], spans_by_length[length]
        return noise_masks.random_spans(key, window, length, noise, spans, most_spans)

    return mask
