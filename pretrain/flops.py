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


def step_flops(learner, batch):
    """Model FLOPs of one training step: forward, and twice as much backward where it is trained.

    Args:
        learner: train_step.Learner.
        batch: contract.Batch of the global batch, arrays or ShapeDtypeStructs.

    Returns:
        FLOPs, float.
    """
    rows, length = batch.inputs.tokens_BxL.shape
    targets = batch.targets_BxK.shape[1]
    stacks = length, length
    if batch.decoder_inputs is not None:
        stacks = length, batch.decoder_inputs.tokens_BxL.shape[1]
    total = 0.0
    for name, module in learner.transformers.items():
        frozen = name in learner.objective.frozen
        predicted = targets
        if learner.objective.projects_all:
            # The places that the hard objective predicts are projected once more.
            chosen = 0 if frozen or batch.places_BxK is None else targets
            predicted = chosen + (targets if batch.places_BxK is None else length)
        forward = forward_flops(module.config, rows, *stacks, predicted)
        total += forward * (1 if frozen else 3)
    return total


def forward_flops(config, batch, encoder_length, decoder_length, predicted):
    """Model FLOPs of a forward pass.

    Matrix products only, as in PaLM (Chowdhery et al. 2022, appendix B): what remat computes again
    does not count, nor does the masked half of attention get a discount (a local layer counts the
    keys in its window, whatever the program computes); the embedding look-up is free, only
    predicted positions meet the vocabulary, and heads that look at one place a row count nothing.

    Args:
        config: TransformerConfig.
        batch: rows. encoder_length, decoder_length: tokens of a row in each stack.
        predicted: K positions of a row.

    Returns:
        FLOPs, float.
    """
    d, h, g, k, f = config.width, config.heads, config.key_heads, config.k, config.f
    own = d * k * (2 * h + 2 * g)  # multiply-adds a token: query, out, key, value
    feed_forward = d * f * (3 if config.gated else 2)
    forward = 0.0
    for layers, length, context, both in (
        (config.encoder_layers, encoder_length, 0, True),
        (
            config.decoder_layers,
            decoder_length,
            encoder_length if config.encoder_layers else 0,
            False,
        ),
    ):
        if not layers:
            continue
        # What maps tables of another width, and the heads that look at every place.
        each = d * config.embedding_width if config.embedding_width not in (0, d) else 0
        each += (d * d if config.token_scores else 0) + d * config.projection_width
        forward += each * length
        # An encoder's window reaches to both sides.
        windows = [2 * (w // 2) + 1 if w and both else w for w in config.windows(layers)]
        sees = sum(min(w or length, length) for w in windows)
        forward += layers * (own + feed_forward) * length + 2 * h * k * length * sees
        if context:
            forward += layers * d * k * (2 * h * length + 2 * g * context)
            forward += layers * 2 * h * k * length * context
    head = 0
    if config.token_head:
        e = config.embedding_width or d
        head = e * config.vocabulary + (d * e if config.logit_transform else 0)
    return 2.0 * batch * (forward + head * predicted)
