"""The one builder of attention masks: causal, prefix, segments, padding and local windows."""

import jax.numpy as jnp


def attention_mask(
    queries_T,
    keys_S,
    *,
    causal,
    window=None,
    prefix_B=None,
    query_segments_BxT=None,
    key_segments_BxS=None,
):
    """Says which keys each query may attend to.

    Args:
        queries_T, keys_S: places of queries and keys in the row (not position embeddings, which
            may start anew in each document).
        causal: keys after the query are hidden, except those inside the prefix.
        window: if causal, number of keys to the left that are seen, the query's own included;
            else keys up to window // 2 places away are, on both sides (ModernBERT). A traced
            scalar will do; 0 or None: no limit.
        prefix_B: number of places at the start of each row that every query sees.
        query_segments_BxT, key_segments_BxS: attention stays among equal numbers; 0 is padding,
            which no query sees.

    Returns:
        bool mask_Bx1xTxS (B may be 1), True where the query may look; None where all may look.
    """
    places_TxS = queries_T[:, None], keys_S[None, :]
    mask = None
    if causal:
        mask = (places_TxS[1] <= places_TxS[0])[None]
        if prefix_B is not None:
            mask = mask | (keys_S[None, None, :] < prefix_B[:, None, None])
    if window is not None:
        distance_TxS = places_TxS[0] - places_TxS[1]
        near_TxS = distance_TxS < window if causal else abs(distance_TxS) <= window // 2
        mask = _and(mask, (near_TxS | (window == 0))[None])
    if query_segments_BxT is not None:
        same = query_segments_BxT[:, :, None] == key_segments_BxS[:, None, :]
        mask = _and(mask, same & (key_segments_BxS != 0)[:, None, :])
    return None if mask is None else mask[:, None]


def at_places(x, read_BxQ, axis):
    """x at Q places of each row along an axis: BxTxD along 1, masks and biases BxHxTxS along 2.

    Where x has 1 for B, all rows share it.
    """
    shape = [1] * x.ndim
    shape[0], shape[axis] = read_BxQ.shape
    return jnp.take_along_axis(x, read_BxQ.reshape(shape), axis=axis)


def _and(mask, other):
    return other if mask is None else mask & other
