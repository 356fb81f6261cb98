"""Floating-point operations of a training step, and what devices could do at best."""

# Dense bfloat16 peak in FLOP/s by jax's device_kind: from the makers' data sheets, without
# sparsity. A device that is not here gets tokens a second and no utilisation.
PEAKS = {
    'NVIDIA A100-SXM4-40GB': 312e12,
    'NVIDIA A100-SXM4-80GB': 312e12,
    'NVIDIA A100-PCIE-40GB': 312e12,
    'NVIDIA A100 80GB PCIe': 312e12,
    'NVIDIA H100 80GB HBM3': 989e12,
    'NVIDIA H100 PCIe': 756e12,
    'NVIDIA H200': 989e12,
    'NVIDIA L4': 121e12,
    'TPU v3': 123e12 / 2,  # a device is a core, half a chip
    'TPU v4': 275e12,
    'TPU v5 lite': 197e12,
    'TPU v5': 459e12,
    'TPU v5p': 459e12,
    'TPU v6 lite': 918e12,
}


def peak(device, dtype):
    """Peak FLOP/s of a jax device in this dtype, or None where it is not known."""
    return PEAKS.get(device.device_kind) if dtype == 'bfloat16' else None


def training_flops(config, batch, length, predicted):
    """Model FLOPs of one training step: forward, and twice as much backward.

    Matrix products only, as in PaLM (Chowdhery et al. 2022, appendix B): what remat computes again
    does not count, nor does the masked half of attention get a discount (a local layer counts the
    keys in its window, whatever the program computes); the embedding look-up is free, and only
    predicted positions meet the vocabulary.

    Args:
        config: TransformerConfig.
        batch: rows. length: L tokens of a row, in each stack. predicted: K positions of a row.

    Returns:
        FLOPs, float.
    """
    d, h, g, k, f = config.width, config.heads, config.key_heads, config.k, config.f
    attention = d * k * (2 * h + 2 * g)  # multiply-adds a token: query, out, key, value
    feed_forward = d * f * (3 if config.gated else 2)
    forward = 0.0
    for layers, cross in (
        (config.encoder_layers, False),
        (config.decoder_layers, config.encoder_layers > 0),
    ):
        sees = sum(min(w or length, length) for w in config.windows(layers))
        forward += layers * (attention * (2 if cross else 1) + feed_forward) * length
        forward += 2 * h * k * length * (sees + (layers * length if cross else 0))
    head = d * config.vocabulary + (d * d if config.logit_transform else 0)
    return 3 * 2.0 * batch * (forward + head * predicted)
