"""Mixture of denoisers: span corruption of several kinds, one drawn for each row.

UL2 (Tay et al. 2022, arXiv 2205.05131, section 3.1). Regular denoisers (R) are those of T5,
extreme ones (X) have long spans or much noise, and the sequential one (S) is a prefix LM: its
noise is the last quarter of the text. A mode token before the inputs says which kind it is.

All rows are windows of one static length, and a row's denoiser is a pair of numbers looked up in
a table, so there is one mask function and no branch. The price is padding where denoisers make
less of a window than others, which the metric `padding` shows.

Departures from the paper: it gives each denoiser the raw length that fills the same inputs; the
shares of its denoisers could not be verified, so DENOISERS has equal ones; the noise of S, too,
stands behind a sentinel.
"""

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract, encodings, losses, noise_masks, span_corruption

# (mode, mean span, density, share); mean span 0: one span, the tail.
DENOISERS = (
    ('R', 3.0, 0.15, 1.0),
    ('R', 8.0, 0.15, 1.0),
    ('S', 0.0, 0.25, 1.0),
    ('X', 3.0, 0.5, 1.0),
    ('X', 8.0, 0.5, 1.0),
    ('X', 64.0, 0.15, 1.0),
    ('X', 64.0, 0.5, 1.0),
)


def make(config, vocabulary):
    """Makes the objective.

    Args:
        config: the recipe's `objective`: `window`, tokens of raw text a row; `inputs_length` and
            `targets_length`, static lengths with EOS and mode token (0: the smallest that hold
            every denoiser); `denoisers`, rows like those of DENOISERS; `mode_tokens`, put the
            mode's token before the inputs; `layout`, a name of encodings.LAYOUTS; `z_loss`,
            coefficient of (log Z)^2 (0: none).
        vocabulary: contract.Vocabulary.

    Returns:
        contract.Objective. Metrics: accuracy, and `padding`, the share of padded places among
        those of inputs and targets.

    Raises:
        ValueError: a denoiser that no text can satisfy, too short lengths, unknown names, too few
            sentinels.
    """
    encodings.check_name('layout', config.layout, encodings.LAYOUTS)
    contract.require_number('z_loss', config.z_loss)
    window = config.window
    _check(config, vocabulary)
    lengths_T = np.arange(window + 1)
    counts = [noise_masks.span_counts(lengths_T, row[2], row[1]) for row in config.denoisers]
    noise_NxT, spans_NxT = (np.stack(tables) for tables in zip(*counts))
    most_spans = int(spans_NxT.max())
    encodings.check_sentinels(
        most_spans,
        vocabulary,
        'mixture_of_denoisers',
        f'shorten window={window} or give the denoisers longer spans',
    )
    inputs_NxT = np.maximum(lengths_T - noise_NxT, 1) + spans_NxT + 1 + config.mode_tokens
    targets_NxT = noise_NxT + spans_NxT + 1
    sizes = (
        _size('inputs_length', config.inputs_length, inputs_NxT),
        _size('targets_length', config.targets_length, targets_NxT),
    )
    row_length = None  # in the layout 'decoder', where a row's two parts have no gap between
    if not config.inputs_length and not config.targets_length:
        row_length = int((inputs_NxT + targets_NxT).max())
    shares_N = jnp.asarray([row[3] for row in config.denoisers], jnp.float32)
    noise_NxT, spans_NxT = jnp.asarray(noise_NxT), jnp.asarray(spans_NxT)
    modes_N = None
    if config.mode_tokens:
        modes_N = jnp.asarray([vocabulary.modes[row[0]] for row in config.denoisers], jnp.int32)
    pieces = encodings.pieces(vocabulary)

    def corrupt_row(key, tokens_W, length):
        which_key, mask_key, input_key = jax.random.split(key, 3)
        which = jax.random.categorical(which_key, jnp.log(shares_N))
        noise, spans = noise_NxT[which, length], spans_NxT[which, length]
        noise_W = noise_masks.random_spans(mask_key, window, length, noise, spans, most_spans)
        names = 'sentinels', 'sentinels'
        first = None if modes_N is None else modes_N[which]
        return encodings.encode(input_key, names, tokens_W, noise_W, length, sizes, pieces, first)

    def corrupt(key, windows):
        keys_B = contract.row_keys(key, windows.numbers_B)
        lengths_B = jnp.sum(windows.documents_BxW != contract.PADDING, axis=1)
        inputs, targets = jax.vmap(corrupt_row)(keys_B, windows.tokens_BxW, lengths_B)
        return encodings.lay_out(inputs, targets, config.layout, vocabulary.pad, row_length)

    def loss(models, batch, key):
        model = models['model']
        z_loss = 0.0 if key is None else config.z_loss
        total = losses.predict_targets(model, model.hidden(batch, key), batch, z_loss)
        return total._replace(metrics=total.metrics | {'padding': padding(batch)})

    stacks = encodings.LAYOUTS[config.layout]
    prompt = 'encoder' if config.layout == 'encoder_decoder' else None
    return contract.Objective(lambda: window, corrupt, loss, stacks=stacks, prompt=prompt)


def padding(batch):
    """The share of padded places among those of inputs and targets: contract.Mean."""
    padded = jnp.sum(batch.inputs.segments_BxL == 0)
    places = batch.inputs.segments_BxL.size
    if batch.decoder_inputs is not None:  # else the targets are among the inputs
        padded += jnp.sum(batch.weights_BxK == 0)
        places += batch.weights_BxK.size
    return contract.Mean(padded.astype(jnp.float32), jnp.float32(places))


def _check(config, vocabulary):
    if config.window < 2:
        raise ValueError(
            f'window={config.window} is too short for a kept token and a noise token: set at '
            'least 2'
        )
    if not config.denoisers:
        raise ValueError('denoisers is empty: give rows of (mode, mean_span, density, share)')
    if config.mode_tokens:
        contract.require(vocabulary, modes='mixture_of_denoisers')
    for row in config.denoisers:
        try:
            mode, mean_span, density, share = row
        except (TypeError, ValueError):
            raise ValueError(
                f'denoisers has the row {row!r}, which is not (mode, mean_span, density, share)'
            ) from None
        for number in (mean_span, density, share):
            contract.require_number('denoisers', number)
        span_corruption.check_density(density)
        if mean_span != 0:
            span_corruption.check_mean_span(mean_span)
            span_corruption.check_spans(config.window, density, mean_span)
        if not share > 0:
            raise ValueError(f'the share {share} of the denoiser {tuple(row)} must be positive')
        if config.mode_tokens:
            encodings.check_name('denoisers mode', mode, vocabulary.modes)


def _size(key, wanted, needed_NxT):
    """The static length of one side: what is wanted, or the smallest that holds every row."""
    needed = int(needed_NxT.max())
    if wanted and wanted < needed:
        raise ValueError(
            f'{key}={wanted} is too short: of a window of {needed_NxT.shape[1] - 1} tokens the '
            f'denoisers make up to {needed}; set 0 for that, or a shorter window'
        )
    return wanted or needed
