"""Noise masks: which tokens of a text are taken away, to be predicted.

T5 (Raffel et al. 2020, section 3.3). A mask function works on one row, `mask(key, window, length,
...) -> bool_W`: the window W is static, the number of real tokens in it is traced, and nothing
beyond it is noise. True is noise, that is what the decoder must produce. (T5's own code flags the
prefix of a prefix LM as noise, and the names of its encodings are the other way round to match.)
"""

import jax
import jax.numpy as jnp
import numpy as np


def span_counts(length, density, mean_span):
    """How many noise tokens, in how many spans, a text of some length gets.

    Rounded half to even in float64 with numpy and looked up by length under jit: the float32
    product of a traced length rounds some lengths to the other side.

    Args:
        length: int or int array. A text of one token counts as two, as in T5.
        density: share of tokens that are noise.
        mean_span: tokens a span on average; 0: all noise is one span.

    Returns:
        (noise, spans), int32, at least 1 each; there are never more spans than noise tokens or
        kept tokens.
    """
    length = np.maximum(length, 2)
    noise = np.clip(np.rint(length * density), 1, length - 1)
    spans = np.rint(noise / mean_span) if mean_span else np.ones_like(noise)
    spans = np.clip(spans, 1, np.minimum(noise, length - noise))
    return noise.astype(np.int32), spans.astype(np.int32)


def random_spans(key, window, length, noise, spans, most_spans):
    """Spans of noise of random lengths: kept text first, then noise, kept, ..., noise at the end.

    The lengths of the noise spans are a uniformly drawn composition of `noise` into `spans`
    positive parts, and those of the kept spans one of `length - noise`.

    Args:
        key: of this row.
        window: W, static.
        length, noise, spans: int32 scalars, traced, as span_counts gives them.
        most_spans: static; no row has more spans.

    Returns:
        bool noise_W.
    """
    kept_key, noise_key = jax.random.split(key)
    kept = jnp.maximum(length, 2) - noise
    # kept_S[j]: kept tokens up to span j of noise. Spans that do not exist begin and end at the
    # end of the text, where they cancel.
    kept_S = _composition(kept_key, window, kept, spans, most_spans)
    noise_S = _composition(noise_key, window, noise, spans, most_spans)
    before_S = jnp.pad(noise_S[:-1], (1, 0))
    steps = jnp.zeros(window + 1, jnp.int32)
    steps = steps.at[kept_S + before_S].add(1, mode='drop')
    steps = steps.at[kept_S + noise_S].add(-1, mode='drop')
    return (jnp.cumsum(steps[:-1]) > 0) & (jnp.arange(window) < length)


def _composition(key, window, total, parts, most_parts):
    """Where the parts of a random composition of `total` into `parts` end: int32_S, ascending.

    All choices of parts - 1 cuts among the total - 1 places between tokens are equally likely.
    Entries from the last part on are `total`.
    """
    places = jnp.arange(1, window)
    scores = jnp.where(places < total, jax.random.uniform(key, (window - 1,)), -1.0)
    # Not top_k, for which XLA gathers the rows of all devices on each of them.
    cuts_S = jnp.argsort(-scores)[:most_parts] + 1
    return jnp.sort(jnp.where(jnp.arange(most_parts) < parts - 1, cuts_S, total))


def independent(key, window, length, density):
    """Each token is noise with probability `density`, independently: bool noise_W."""
    return (jax.random.uniform(key, (window,)) < density) & (jnp.arange(window) < length)


def prefix_length(key, length):
    """A length of prefix, uniform in [1, length - 1]; 1 where the text has fewer than 2 tokens."""
    return jax.random.randint(key, (), 1, jnp.maximum(length, 2))


def after_prefix(key, window, length):
    """All that follows a random prefix is noise: bool noise_W."""
    places = jnp.arange(window)
    return (places >= prefix_length(key, length)) & (places < length)


def everything(key, window, length):
    """All tokens are noise: bool noise_W."""
    del key
    return jnp.arange(window) < length


def roll(key, noise_W, length):
    """Turns a mask by a random number of places within `length`, past the end to the start.

    Without it random_spans has less noise at the start of a text than at its end.
    """
    window = noise_W.shape[0]
    places, length = jnp.arange(window), jnp.maximum(length, 1)
    source = (places - jax.random.randint(key, (), 0, length)) % length
    return noise_W[source] & (places < length)


def first_runs(noise_W, most):
    """Keeps the first `most` runs of noise; those behind become kept text."""
    starts_W = noise_W & ~jnp.pad(noise_W[:-1], (1, 0))
    return noise_W & (jnp.cumsum(starts_W) <= most)
