"""Floating-point operations of a step, counted by hand and by XLA."""

from types import SimpleNamespace

import jax
import jax.numpy as jnp
import pytest

from objectives import contract
from pretrain import flops
from pretrain.model import transformer
from pretrain.model.config import TransformerConfig

# Multiply-adds of one row of 5 tokens, of which 3 are predicted: D = 8, H = 2, K = 4, F = 32,
# V = 10. Query, key, value and out are 8 x 8 each, the two matrices of the feed-forward 8 x 32;
# queries meet keys, and probabilities values, in 2 heads of 5 x 5 x 4.
PROJECTIONS = 5 * 4 * 8 * 8
FEED_FORWARD = 5 * 2 * 8 * 32
ATTENTION = 2 * 2 * 5 * 5 * 4
HEAD = 3 * 8 * 10


@pytest.mark.parametrize(
    ('fields', 'multiply_adds'),
    [
        ({}, 2 * (PROJECTIONS + FEED_FORWARD + ATTENTION) + HEAD),
        # A third matrix of 8 x 20, and keys and values of one head of 4.
        (
            {'gated': True, 'feedforward_width': 20, 'kv_heads': 1},
            2 * (5 * (2 * 8 * 8 + 2 * 8 * 4) + 5 * 3 * 8 * 20 + ATTENTION) + HEAD,
        ),
        # Heads wider than the width: 2 x 16.
        (
            {'head_width': 16},
            2 * (5 * 4 * 8 * 32 + FEED_FORWARD + 2 * 2 * 5 * 5 * 16) + HEAD,
        ),
        # The second of two layers sees 2 keys, not 5; a window wider than the row hides nothing.
        (
            {'attention_window': 2, 'global_every': 2},
            2 * (PROJECTIONS + FEED_FORWARD) + ATTENTION + 2 * 2 * 5 * 2 * 4 + HEAD,
        ),
        ({'attention_window': 9}, 2 * (PROJECTIONS + FEED_FORWARD + ATTENTION) + HEAD),
        # One layer of an encoder, and in each of two of the decoder a second attention.
        (
            {'encoder_layers': 1},
            (PROJECTIONS + FEED_FORWARD + ATTENTION)
            + 2 * (2 * PROJECTIONS + FEED_FORWARD + 2 * ATTENTION)
            + HEAD,
        ),
        # An encoder alone with BERT's dense layer before the logits.
        (
            {'encoder_layers': 3, 'decoder_layers': 0, 'logit_transform': True},
            3 * (PROJECTIONS + FEED_FORWARD + ATTENTION) + HEAD + 3 * 8 * 8,
        ),
    ],
)
def test_by_hand(fields, multiply_adds):
    """Two FLOPs a multiply-add, in each of 7 rows."""
    config = TransformerConfig(
        **({'vocabulary': 10, 'decoder_layers': 2, 'width': 8, 'heads': 2} | fields)
    )
    assert flops.forward_flops(config, 7, 5, 5, 3) == 7 * 2 * multiply_adds


def test_gpt3_of_the_paper():
    """Brown et al. 2020, table D.1: 3.14e23 FLOPs for 300 billion tokens of the 175B model.

    That table counts 6 FLOPs a parameter and token, without the products of attention.
    """
    config = TransformerConfig(50257, decoder_layers=96, width=12288, heads=96)
    whole = 3 * flops.forward_flops(config, 1, 2048, 2048, 2048) * 300e9 / 2048
    attention = 3 * 2 * 2 * 96 * 12288 * 2048 * 300e9
    assert whole - attention == pytest.approx(3.14e23, rel=0.005)


@pytest.mark.parametrize(
    'fields',
    [
        {},
        {'gated': True, 'activation': 'silu', 'norm': 'rms', 'biases': False},
        {'kv_heads': 1, 'positions': 'rotary'},
        {'encoder_layers': 1, 'positions': 'relative', 'norm': 'rms'},
        {'encoder_layers': 2, 'decoder_layers': 0, 'logit_transform': True},
    ],
)
def test_xla_counts_a_little_more(fields):
    """XLA also counts norms, softmax, activations, biases and sums: here 1 to 3 %.

    Layers are unrolled, because XLA counts the body of a loop once.
    """
    batch, length = 2, 128
    config = TransformerConfig(
        **(
            {'vocabulary': 256, 'decoder_layers': 2, 'width': 128, 'heads': 4, 'unroll': True}
            | fields
        )
    )
    module = transformer.Transformer(config)
    params = jax.eval_shape(lambda: transformer.init(module, jax.random.key(0)))
    inputs = contract.Inputs(jax.ShapeDtypeStruct((batch, length), jnp.int32))
    both = config.encoder_layers and config.decoder_layers

    def forward(params, inputs):
        return module.apply({'params': params}, inputs, inputs if both else None)

    compiled = jax.jit(forward).lower(params, inputs).compile()
    counted = compiled.cost_analysis()['flops']
    ours = flops.forward_flops(config, batch, length, length, length)
    assert ours < counted < 1.035 * ours


def test_backward_is_twice_the_forward():
    config = TransformerConfig(256, decoder_layers=2, width=128, heads=4, unroll=True)
    module = transformer.Transformer(config)
    params = jax.eval_shape(lambda: transformer.init(module, jax.random.key(0)))
    inputs = contract.Inputs(jax.ShapeDtypeStruct((2, 128), jnp.int32))

    def loss(params, inputs):
        return jnp.square(module.apply({'params': params}, inputs)).sum()

    compiled = jax.jit(jax.value_and_grad(loss)).lower(params, inputs).compile()
    counted = compiled.cost_analysis()['flops']
    ours = 3 * flops.forward_flops(config, 2, 128, 128, 128)
    assert ours < counted < 1.035 * ours


def test_stacks_of_two_lengths():
    """An encoder of 5 tokens, a decoder of 3 that looks at them, 2 predicted."""
    config = TransformerConfig(10, encoder_layers=1, decoder_layers=1, width=8, heads=2)
    encoder = PROJECTIONS + FEED_FORWARD + ATTENTION
    own = 3 * 4 * 8 * 8 + 3 * 2 * 8 * 32 + 2 * 2 * 3 * 3 * 4
    cross = 8 * 8 * (2 * 3 + 2 * 5) + 2 * 2 * 3 * 5 * 4
    assert flops.forward_flops(config, 1, 5, 3, 2) == 2 * (encoder + own + cross + 2 * 8 * 10)


def test_a_frozen_teacher_counts_its_forward_pass_alone():
    """Student and teacher project all 6 places, the student its 2 masked ones once more."""
    student = TransformerConfig(10, encoder_layers=1, width=8, heads=2)
    teacher = TransformerConfig(10, encoder_layers=2, width=8, heads=2)
    learner = SimpleNamespace(
        transformers={
            'student': SimpleNamespace(config=student),
            'teacher': SimpleNamespace(config=teacher),
        },
        objective=SimpleNamespace(frozen=('teacher',), projects_all=True),
    )
    shape = jax.ShapeDtypeStruct((3, 6), jnp.int32)
    chosen = jax.ShapeDtypeStruct((3, 2), jnp.int32)
    batch = contract.Batch(contract.Inputs(shape), None, chosen, chosen, chosen)
    assert flops.step_flops(learner, batch) == (
        3 * flops.forward_flops(student, 3, 6, 6, 8) + flops.forward_flops(teacher, 3, 6, 6, 6)
    )


def test_peak():
    device = lambda kind: SimpleNamespace(device_kind=kind)  # noqa: E731
    # NVIDIA's data sheets say 989.4, 312 and 121 TFLOP/s, dense; Google's 275 for a TPU v4.
    assert flops.peak(device('NVIDIA H100 80GB HBM3'), 'bfloat16') == pytest.approx(989.4e12, 0.01)
    assert flops.peak(device('NVIDIA A100-SXM4-80GB'), 'bfloat16') == 312e12
    assert flops.peak(device('NVIDIA L4'), 'bfloat16') == 121e12
    assert flops.peak(device('TPU v4'), 'bfloat16') == 275e12
    assert flops.peak(device('TPU v4'), 'float32') is None
    assert flops.peak(device('cpu'), 'bfloat16') is None
    assert flops.peak(jax.devices()[0], 'bfloat16') is None
