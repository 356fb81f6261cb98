"""Published sizes of every family, counted without making them, against transformers' own classes.

The numbers were counted by transformers 5.23 on torch's meta device; the last test counts again.
"""

import jax
import pytest

from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, init


def gpt2(layers, width, heads):
    return {'vocabulary': 50257, 'decoder_layers': layers, 'width': width, 'heads': heads}


def bert(layers, width, heads, **fields):
    return {
        'vocabulary': 30522, 'encoder_layers': layers, 'width': width, 'heads': heads,
        'max_positions': 512, 'segment_types': 2, 'norm_placement': 'post', 'norm_epsilon': 1e-12,
        'embedding_norm': True, 'final_norm': False, 'logit_transform': True, 'logit_bias': True,
        'initializer': 'truncated_normal',
    } | fields  # fmt: skip


def t5(width, layers, feedforward, heads, head_width=64, old=False):
    return {
        'vocabulary': 32128, 'encoder_layers': layers, 'decoder_layers': layers, 'width': width,
        'heads': heads, 'head_width': head_width, 'feedforward_width': feedforward, 'norm': 'rms',
        'norm_epsilon': 1e-6, 'biases': False, 'positions': 'relative', 'scale_attention': False,
        'initializer': 'fan_in', 'activation': 'relu' if old else 'gelu', 'gated': not old,
        'tied': old, 'scale_logits': old,
    }  # fmt: skip


DISCRIMINATOR = {'token_head': False, 'token_scores': True}
MODERNBERT = {
    'vocabulary': 50368, 'encoder_layers': 22, 'width': 768, 'heads': 12,
    'feedforward_width': 1152, 'norm_bias': False, 'embedding_norm': True, 'first_norm': False,
    'biases': False, 'positions': 'rotary', 'rotary_theta': 160_000.0,
    'rotary_theta_local': 10_000.0, 'activation': 'gelu_erf', 'gated': True,
    'attention_window': 128, 'global_every': 3, 'logit_transform': True, 'logit_bias': True,
}  # fmt: skip

SIZES = {
    'gpt2': (gpt2(12, 768, 12), 124_439_808),
    'gpt2_medium': (gpt2(24, 1024, 16), 354_823_168),
    'gpt2_large': (gpt2(36, 1280, 20), 774_030_080),
    'gpt2_xl': (gpt2(48, 1600, 25), 1_557_611_200),
    'bert_base': (bert(12, 768, 12, classes=2), 110_106_428),
    'bert_base_without_next_sentence': (bert(12, 768, 12), 109_514_298),
    'bert_large': (bert(24, 1024, 16, classes=2), 336_226_108),
    'distilbert': (bert(6, 768, 12, segment_types=0), 66_985_530),
    'electra_small': (bert(12, 256, 4, embedding_width=128, **DISCRIMINATOR), 13_549_057),
    'electra_small_generator': (bert(12, 64, 1, embedding_width=128), 4_620_026),
    'electra_base': (bert(12, 768, 12, **DISCRIMINATOR), 109_483_009),
    'electra_base_generator': (bert(12, 256, 4, embedding_width=768), 33_740_602),
    # Ours has the norm that the first layer leaves out: 768 numbers that nothing reads.
    'modernbert_base': (MODERNBERT, 149_655_232 + 768),
    't5_small': (t5(512, 6, 2048, 8, old=True), 60_506_624),
    't5_base': (t5(768, 12, 3072, 12, old=True), 222_903_552),
    't5_large': (t5(1024, 24, 4096, 16, old=True), 737_668_096),
    't5_3b': (t5(1024, 24, 16384, 32, 128, old=True), 2_851_598_336),
    't5_11b': (t5(1024, 24, 65536, 128, 128, old=True), 11_307_321_344),
    't5_1_1_small': (t5(512, 8, 1024, 6), 76_961_152),
    't5_1_1_base': (t5(768, 12, 2048, 12), 247_577_856),
    't5_1_1_large': (t5(1024, 24, 2816, 16), 783_150_080),
    't5_1_1_xl': (t5(2048, 24, 5120, 32), 2_849_757_184),
    't5_1_1_xxl': (t5(4096, 24, 10240, 64), 11_135_332_352),
}


@pytest.mark.peers  # the tests of the recipes count most of these sizes in every run
@pytest.mark.parametrize('name', list(SIZES))
def test_published_sizes(name):
    fields, count = SIZES[name]
    config = TransformerConfig(**fields)
    shapes = jax.eval_shape(lambda: init(Transformer(config), jax.random.key(0)))
    assert sum(x.size for x in jax.tree.leaves(shapes)) == count


@pytest.mark.peers
@pytest.mark.parametrize(
    ('name', 'family', 'arguments'),
    [
        ('gpt2', 'GPT2LMHeadModel', {}),
        ('bert_base', 'BertForPreTraining', {}),
        ('bert_base_without_next_sentence', 'BertForMaskedLM', {}),
        (
            'bert_large', 'BertForPreTraining',
            {'num_hidden_layers': 24, 'hidden_size': 1024, 'num_attention_heads': 16,
             'intermediate_size': 4096},
        ),
        ('distilbert', 'DistilBertForMaskedLM', {}),
        ('electra_small', 'ElectraForPreTraining', {}),
        (
            'electra_base_generator', 'ElectraForMaskedLM',
            {'embedding_size': 768, 'hidden_size': 256, 'intermediate_size': 1024},
        ),
        ('modernbert_base', 'ModernBertForMaskedLM', {}),
        (
            't5_11b', 'T5ForConditionalGeneration',
            {'vocab_size': 32128, 'd_model': 1024, 'd_kv': 128, 'd_ff': 65536, 'num_layers': 24,
             'num_heads': 128},
        ),
        (
            't5_1_1_xxl', 'T5ForConditionalGeneration',
            {'vocab_size': 32128, 'd_model': 4096, 'd_kv': 64, 'd_ff': 10240, 'num_layers': 24,
             'num_heads': 64, 'feed_forward_proj': 'gated-gelu'},
        ),
    ],
)  # fmt: skip
def test_transformers_counts_the_same(name, family, arguments):
    needs = 'pip install -e .[test,peers]'
    torch = pytest.importorskip('torch', reason=f'torch is missing: {needs}')
    transformers = pytest.importorskip('transformers', reason=f'transformers is missing: {needs}')
    family = getattr(transformers, family)
    with torch.device('meta'):
        peer = family(family.config_class(**arguments))
    count = sum(parameter.numel() for parameter in peer.parameters())
    if name.startswith('t5_1_1'):  # transformers 5 ties the logits of every new T5
        assert peer.lm_head.weight is peer.shared.weight
        count += peer.lm_head.weight.numel()
    if name == 'modernbert_base':
        count += 768
    assert count == SIZES[name][1]
