"""Every way in which the families of transformers differ, as fields of one config.

| | GPT-2, GPT-3 | modern decoder | BERT | T5 1.0 (1.1) |
|---|---|---|---|---|
| stacks | decoder | decoder | encoder | encoder + decoder |
| norm | layer, pre, final | rms, pre, final | layer, post, after the embeddings | rms, pre, final |
| biases | yes | no | yes | no |
| positions | learned | rotary | learned | relative |
| activation | gelu | silu, gated | gelu | relu (gelu, gated) |
| logits | tied | tied or not | tied, transform, bias | tied, scaled (not tied) |
| initializer | normal, residual_scale | normal, residual_scale | truncated_normal | fan_in |
"""

import dataclasses
import difflib
import typing
from typing import Literal

from pretrain.errors import UserError


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """The shape and the manners of a transformer; the fields of `model` in a recipe.

    vocabulary: rows of the embedding table; in a recipe 0 means as many as the tokenizer needs.
    encoder_layers, decoder_layers: 0 leaves the stack out; both make an encoder-decoder.
    width: D. heads: H. head_width: K, 0 means width / heads. feedforward_width: F, 0 means 4 D.
    kv_heads: keys and values shared by groups of heads (grouped-query attention); 0 means heads.
    norm: 'layer' (LayerNorm) or 'rms'. norm_bias: LayerNorm's bias. norm_epsilon: as named.
    norm_placement: 'pre', before each sub-layer, or 'post', after the residual sum.
    final_norm: a norm after the last layer. embedding_norm: one after the sum of embeddings.
    biases: biases in all dense layers.
    positions: 'learned', 'rotary', 'relative' (T5's bias, one table a stack) or 'none'.
    max_positions: rows of the learned table; the others take any length.
    rotary_theta: base of the rotary wavelengths.
    relative_buckets, relative_distance: T5's 32 buckets up to distance 128.
    segment_types: rows of the segment embedding (BERT: 2); 0: none.
    activation: 'gelu' (tanh form), 'gelu_erf', 'relu', 'silu'. gated: times a linear gate (GLU).
    scale_attention: logits of attention divided by sqrt(K); T5 does not.
    query_key_norm: RMS norm of queries and keys, per head, before the rotation.
    attention_window: keys that a query sees to its left, itself included, in local layers; 0: all.
    window_every, window_offset: layer i is local where i % window_every == window_offset.
    tied: the logits use the embedding table. scale_logits: hidden x D^-0.5 first (T5 1.0).
    logit_transform: dense + activation + norm before the logits (BERT). logit_bias: one a token.
    initializer: 'normal', 'truncated_normal' (at 2 sigma, variance not restored: BERT's) with
        `stddev`, or 'fan_in' (T5's). position_stddev: of the learned positions; 0: stddev.
    residual_scale: output projections drawn with stddev / sqrt(number of residual additions)
        (GPT-2, section 2.3).
    dropout: on embeddings and sub-layers. attention_dropout: on attention probabilities.
    dropout_inside, dropout_final: also inside the feed-forward and after the final norm (T5).
    dropout_broadcast: one mask for all positions of a row (T5).
    dtype: of the computation, 'float32' or 'bfloat16'; parameters, softmax and loss are float32.
    remat: what the backward pass computes again: 'none', 'full', or 'dots' (all but matmuls).
    unroll: the scan over layers is unrolled (larger program, the same parameters).
    """

    vocabulary: int
    encoder_layers: int = 0
    decoder_layers: int = 0
    width: int = 768
    heads: int = 12
    kv_heads: int = 0
    head_width: int = 0
    feedforward_width: int = 0
    norm: Literal['layer', 'rms'] = 'layer'
    norm_bias: bool = True
    norm_epsilon: float = 1e-5
    norm_placement: Literal['pre', 'post'] = 'pre'
    final_norm: bool = True
    embedding_norm: bool = False
    biases: bool = True
    positions: Literal['learned', 'rotary', 'relative', 'none'] = 'learned'
    max_positions: int = 1024
    rotary_theta: float = 10000.0
    relative_buckets: int = 32
    relative_distance: int = 128
    segment_types: int = 0
    activation: Literal['gelu', 'gelu_erf', 'relu', 'silu'] = 'gelu'
    gated: bool = False
    scale_attention: bool = True
    query_key_norm: bool = False
    attention_window: int = 0
    window_every: int = 1
    window_offset: int = 0
    tied: bool = True
    scale_logits: bool = False
    logit_transform: bool = False
    logit_bias: bool = False
    initializer: Literal['normal', 'truncated_normal', 'fan_in'] = 'normal'
    stddev: float = 0.02
    position_stddev: float = 0.0
    residual_scale: bool = False
    dropout: float = 0.0
    attention_dropout: float = 0.0
    dropout_inside: bool = False
    dropout_final: bool = False
    dropout_broadcast: bool = False
    dtype: Literal['float32', 'bfloat16'] = 'float32'
    remat: Literal['none', 'full', 'dots'] = 'none'
    unroll: bool = False

    def __post_init__(self):
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            choices = typing.get_args(field.type)
            if choices and value not in choices:
                raise UserError(
                    f'model.{field.name}={value!r} is not one of {", ".join(map(repr, choices))}'
                    + _nearest(value, choices)
                )
            if isinstance(value, int) and value < 0:
                raise UserError(f'model.{field.name}={value} must be at least 0')
        for name in ('dropout', 'attention_dropout'):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f'model.{name}={getattr(self, name)} must be at least 0 and under 1'
                )
        if not self.encoder_layers and not self.decoder_layers:
            raise UserError('model has no layers: set model.encoder_layers or model.decoder_layers')
        for name in ('vocabulary', 'width', 'heads', 'max_positions', 'window_every'):
            if getattr(self, name) < 1:
                raise UserError(f'model.{name}={getattr(self, name)} must be at least 1')
        if not self.head_width and self.width % self.heads:
            raise UserError(
                f'model.width={self.width} is not divisible by model.heads={self.heads}: '
                'change one of them or set model.head_width'
            )
        if self.kv_heads and self.heads % self.kv_heads:
            raise UserError(
                f'model.heads={self.heads} is not divisible by model.kv_heads={self.kv_heads}'
            )
        if self.positions == 'rotary' and self.k % 2:
            raise UserError(f'rotary positions need an even head width, not {self.k}')

    @property
    def k(self):
        """K, the width of a head."""
        return self.head_width or self.width // self.heads

    @property
    def key_heads(self):
        """Number of heads of keys and values."""
        return self.kv_heads or self.heads

    @property
    def f(self):
        """F, the width of the feed-forward layer."""
        return self.feedforward_width or 4 * self.width

    def windows(self, layers):
        """For each layer how many keys a query sees, itself included; 0 where it sees all."""
        local = [i % self.window_every == self.window_offset for i in range(layers)]
        return [self.attention_window if x else 0 for x in local]


def _nearest(value, choices):
    near = difflib.get_close_matches(str(value), choices, 1)
    return f'; did you mean {near[0]!r}?' if near else ''
