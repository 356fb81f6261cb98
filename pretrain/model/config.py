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

ELECTRA is BERT with `embedding_width`; its generator has the vocabulary head, its discriminator
`token_scores` alone. DistilBERT is BERT without `segment_types` and `classes`. ModernBERT is a
pre-norm encoder without biases, with the rotary positions, gate and local layers of the modern
decoder, BERT's head and no first norm.
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
    first_norm: the norm before the first layer's attention; ModernBERT leaves it out. Without it
        that layer still has its row of the stacked norms: nothing reads it, its gradient is 0.
    biases: biases in all dense layers.
    positions: 'learned', 'rotary', 'relative' (T5's bias, one table a stack) or 'none'.
    max_positions: rows of the learned table; the others take any length.
    rotary_theta: base of the rotary wavelengths. rotary_theta_local: of local layers; 0: the same.
    relative_buckets, relative_distance: T5's 32 buckets up to distance 128.
    segment_types: rows of the segment embedding (BERT: 2); 0: none.
    embedding_width: E, of the tables of tokens, positions and segments and of the norm of their
        sum, which a dense layer then maps to D (ELECTRA); 0: D, without that layer.
    activation: 'gelu' (tanh form), 'gelu_erf', 'relu', 'silu'. gated: times a linear gate (GLU).
    scale_attention: logits of attention divided by sqrt(K); T5 does not.
    query_key_norm: RMS norm of queries and keys, per head, before the rotation.
    attention_window: w, keys that a query of a local layer sees: in a decoder the w last ones,
        itself included, in an encoder those at most w // 2 places away; 0: no layer is local.
    global_every: layer i sees all keys where i % global_every == 0 (GPT-3: 2, ModernBERT: 3), the
        others are local; 0: all are local.
    token_head: logits over the vocabulary, which the next four fields describe.
    tied: the logits use the embedding table. scale_logits: hidden x D^-0.5 first (T5 1.0).
    logit_transform: dense + activation + norm before the logits (BERT), as wide as the table that
        is tied. logit_bias: one a token.
    pooler: one vector a row, from its first place: dense + tanh (BERT).
    classes: of a row: the pooler, then linear (BERT's next sentence); 0: no such head.
    token_scores: one logit a place: dense + activation + linear (ELECTRA's discriminator).
    projection_width: P, of a linear map of the hidden states, to compare them with those of a
        model of that width (distillation); 0: none.
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
    first_norm: bool = True
    final_norm: bool = True
    embedding_norm: bool = False
    biases: bool = True
    positions: Literal['learned', 'rotary', 'relative', 'none'] = 'learned'
    max_positions: int = 1024
    rotary_theta: float = 10000.0
    rotary_theta_local: float = 0.0
    relative_buckets: int = 32
    relative_distance: int = 128
    segment_types: int = 0
    embedding_width: int = 0
    activation: Literal['gelu', 'gelu_erf', 'relu', 'silu'] = 'gelu'
    gated: bool = False
    scale_attention: bool = True
    query_key_norm: bool = False
    attention_window: int = 0
    global_every: int = 0
    token_head: bool = True
    tied: bool = True
    scale_logits: bool = False
    logit_transform: bool = False
    logit_bias: bool = False
    pooler: bool = False
    classes: int = 0
    token_scores: bool = False
    projection_width: int = 0
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
            if isinstance(value, int | float) and value < 0:
                raise UserError(f'model.{field.name}={value} must be at least 0')
        for name in ('dropout', 'attention_dropout'):
            if not 0 <= getattr(self, name) < 1:
                raise UserError(
                    f'model.{name}={getattr(self, name)} must be at least 0 and under 1'
                )
        if not self.encoder_layers and not self.decoder_layers:
            raise UserError('model has no layers: set model.encoder_layers or model.decoder_layers')
        for name in ('vocabulary', 'width', 'heads', 'max_positions'):
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
        if self.e != self.width and self.token_head and self.tied and not self.logit_transform:
            raise UserError(
                f'model.width={self.width} does not fit the tied table of model.embedding_width='
                f'{self.e}: set model.logit_transform, which maps one to the other, or tied=False'
            )
        if not self.first_norm and self.norm_placement != 'pre':
            raise UserError("model.first_norm=False goes with model.norm_placement='pre' alone")

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

    @property
    def e(self):
        """E, the width of the embedding tables."""
        return self.embedding_width or self.width

    def windows(self, layers):
        """For each layer its attention_window, or 0 where a query sees all keys."""
        every = self.global_every
        return [0 if every and i % every == 0 else self.attention_window for i in range(layers)]

    def thetas(self, layers):
        """For each layer the base of its rotary wavelengths."""
        local = self.rotary_theta_local or self.rotary_theta
        return [local if window else self.rotary_theta for window in self.windows(layers)]


def _nearest(value, choices):
    near = difflib.get_close_matches(str(value), choices, 1)
    return f'; did you mean {near[0]!r}?' if near else ''
