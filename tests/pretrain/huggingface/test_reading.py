"""Every tensor is accounted for: used, left out for a reason, or an error that names it."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy

from pretrain.errors import UserError
from pretrain.huggingface.reading import read_model

FIXTURES = Path(__file__).parent / 'fixtures'


def changed(folder, name, config=(), tensors=()):
    """A copy of a fixture with keys of config.json and tensors changed; None removes one."""
    copy = folder / 'changed'
    shutil.copytree(FIXTURES / name, copy, dirs_exist_ok=True)
    raw = json.loads((copy / 'config.json').read_text()) | dict(config)
    raw = {key: value for key, value in raw.items() if (key, value) != ('model_type', None)}
    (copy / 'config.json').write_text(json.dumps(raw))
    arrays = safetensors.numpy.load_file(copy / 'model.safetensors') | dict(tensors)
    arrays = {key: value for key, value in arrays.items() if value is not None}
    safetensors.numpy.save_file(arrays, copy / 'model.safetensors')
    return copy


def stored(name):
    return safetensors.numpy.load_file(FIXTURES / name / 'model.safetensors')


def zeros(*shape):
    return np.zeros(shape, np.float32)


CROSS = 'decoder.block.0.layer.1.EncDecAttention'
WORDS = 'bert.embeddings.word_embeddings.weight'


@pytest.mark.parametrize(
    ('name', 'tensors', 'reason'),
    [
        ('gpt2', {'transformer.h.0.attn.bias': zeros(1, 1, 4, 4)}, 'mask'),
        ('gpt2', {'transformer.h.1.attn.masked_bias': zeros(1)}, 'mask'),
        ('bert', {'bert.embeddings.position_ids': np.arange(20)[None]}, 'counted'),
        ('bert', {'classifier.weight': zeros(5, 16)}, 'fine-tuned'),
        ('bert', {'cls.predictions.decoder.weight': stored('bert')[WORDS]}, f'a copy of {WORDS}'),
        ('t5', {'encoder.embed_tokens.weight': stored('t5')['shared.weight']}, 'a copy of shared'),
        (
            't5',
            {f'{CROSS}.relative_attention_bias.weight': zeros(32, 2)},
            'no layer reads',
        ),
        ('llama', {'model.layers.0.self_attn.rotary_emb.inv_freq': zeros(2)}, 'computed'),
    ],
)
def test_what_is_left_out_is_said(tmp_path, name, tensors, reason):
    plain = read_model(FIXTURES / name)
    model = read_model(changed(tmp_path, name, tensors=tensors))
    assert not plain.left_out
    assert model.used == plain.used
    assert list(model.left_out) == list(tensors)
    assert reason in model.left_out[next(iter(tensors))]


def fails(folder, *says):
    with pytest.raises(UserError) as caught:
        read_model(folder)
    assert '\n' not in str(caught.value)
    for part in says:
        assert part in str(caught.value), caught.value


def test_an_unknown_tensor_is_an_error(tmp_path):
    folder = changed(tmp_path, 'gpt2', tensors={'transformer.h.0.moe.router.weight': zeros(4, 16)})
    fails(folder, "'transformer.h.0.moe.router.weight' (4, 16)", 'has no place in a gpt2')


def test_a_layer_more_than_config_json_says_is_an_error(tmp_path):
    fails(changed(tmp_path, 'bert', {'num_hidden_layers': 1}), 'bert.encoder.layer.1.')


def test_a_missing_tensor_is_named(tmp_path):
    name = 'model.layers.1.mlp.up_proj.weight'
    fails(changed(tmp_path, 'llama', tensors={name: None}), f"lacks the tensor '{name}' (24, 16)")


def test_other_shapes_are_both_named(tmp_path):
    folder = changed(tmp_path, 'bert', {'type_vocab_size': 3})
    fails(folder, "'bert.embeddings.token_type_embeddings.weight' is (2, 16)", 'be (3, 16)')


def test_a_copy_that_differs_is_an_error(tmp_path):
    folder = changed(tmp_path, 'gpt2', tensors={'lm_head.weight': zeros(61, 16)})
    fails(folder, "'lm_head.weight' differs from")


def test_a_copy_stands_for_a_missing_tensor(tmp_path):
    """Old files of T5 hold the table as the encoder's alone."""
    table = stored('t5')['shared.weight']
    folder = changed(
        tmp_path, 't5', tensors={'shared.weight': None, 'encoder.embed_tokens.weight': table}
    )
    model = read_model(folder)
    np.testing.assert_array_equal(model.params['token_embedding']['table'], table)


def test_names_without_the_prefix_and_of_old_norms_are_read(tmp_path):
    """As the base class saves them, and as BERT's first conversions named their norms."""
    old = {}
    for name, array in stored('bert_masked_lm').items():
        new = name.removeprefix('bert.')
        if 'LayerNorm' in new:
            new = new.replace('.weight', '.gamma').replace('.bias', '.beta')
        old |= {name: None, new: array}
    model = read_model(changed(tmp_path, 'bert_masked_lm', tensors=old))
    plain = read_model(FIXTURES / 'bert_masked_lm')
    np.testing.assert_array_equal(
        model.params['embedding_norm']['scale'], plain.params['embedding_norm']['scale']
    )
    assert model.used == plain.used


def test_a_config_without_a_model_type_is_told_by_the_names(tmp_path):
    folder = changed(tmp_path, 'bert', {'model_type': None})
    assert read_model(folder).family.model_type == 'bert'
    fails(changed(tmp_path, 't5', {'model_type': None}), 'has no model_type')


@pytest.mark.parametrize(
    ('name', 'config', 'says'),
    [
        ('gpt2', {'model_type': 'mamba'}, "'mamba', which is not supported: gpt2, bert,"),
        ('gpt2', {'activation_function': 'mish'}, "activation_function='mish'"),
        ('gpt2', {'scale_attn_by_inverse_layer_idx': True}, 'scale_attn_by_inverse_layer_idx=True'),
        ('bert', {'position_embedding_type': 'relative_key'}, "'relative_key'"),
        ('bert', {'is_decoder': True}, 'is_decoder=True'),
        ('bert', {'hidden_size': 15}, 'width=15'),
        ('bert', {'hidden_size': 'large'}, "hidden_size='large'"),
        ('llama', {'head_dim': 10**30}, 'below 2^31'),
        ('bert', {'num_hidden_layers': 2.0}, 'num_hidden_layers=2.0'),
        ('gpt2', {'tie_word_embeddings': 1}, 'tie_word_embeddings=1'),
        ('bert', {'type_vocab_size': 0}, 'type_vocab_size=0'),
        ('t5', {'feed_forward_proj': 'gated-relu6', 'dense_act_fn': None}, "'gated-relu6'"),
        ('t5', {'dense_act_fn': 'relu6'}, 'feed_forward_proj'),
        ('t5', {'feed_forward_proj': None, 'dense_act_fn': None}, 'feed_forward_proj=None'),
        ('t5', {'relative_attention_num_buckets': 2}, '2 relative buckets'),
        ('llama', {'is_causal': False}, 'is_causal=False'),
        ('gpt2', {'is_causal': False}, 'is_causal=False'),
        ('gpt2', {'quantization_config': {'bits': 4}}, 'quantization_config'),
        ('gpt2', {'model_type': []}, 'model_type []'),
        ('llama', {'rope_scaling': {'rope_type': 'linear', 'factor': 2.0}}, "'linear'"),
        ('llama', {'rope_parameters': {'rope_theta': None}}, 'rope_theta=None'),
        ('llama', {'rope_parameters': 'x'}, "rope_parameters='x'"),
        ('llama', {'rope_parameters': {'full_attention': {}}}, 'full_attention'),
        ('gpt2', {'num_attention_heads': 3}, 'width=16'),
        ('llama', {'rope_parameters': {'rope_type': 'yarn', 'factor': 4.0}}, "'yarn'"),
        ('llama', {'attention_bias': True}, 'attention_bias=True'),
        ('qwen3', {'use_sliding_window': True}, 'use_sliding_window=True'),
        ('electra_generator', {'hidden_act': 'gelu_new'}, 'exact GELU'),
        ('llama', {'hidden_size': None}, "lacks 'hidden_size'"),
    ],
)
def test_what_would_be_computed_otherwise_is_refused(tmp_path, name, config, says):
    fails(changed(tmp_path, name, config), says)


@pytest.mark.parametrize(
    ('name', 'config', 'field', 'value'),
    [
        ('gpt2', {'num_attention_heads': 4}, 'heads', 4),
        ('distilbert', {'num_attention_heads': 4}, 'heads', 4),
        (
            'llama',
            {'rope_parameters': {'rope_theta': 300.0}, 'rope_theta': 77.0},
            'rotary_theta',
            300,
        ),
        ('llama', {'rope_parameters': None, 'rope_theta': 77.0}, 'rotary_theta', 77),
        ('llama', {'rope_scaling': {'rope_theta': 33.0}}, 'rotary_theta', 33),
        ('t5', {'dense_act_fn': 'silu'}, 'activation', 'silu'),
        ('t5', {'feed_forward_proj': 'silu', 'dense_act_fn': None}, 'activation', 'silu'),
    ],
)
def test_keys_go_before_each_other_as_in_transformers(tmp_path, name, config, field, value):
    assert getattr(read_model(changed(tmp_path, name, config)).config, field) == value


def test_two_names_of_one_tensor_are_an_error(tmp_path):
    fails(changed(tmp_path, 'gpt2', tensors={'wte.weight': zeros(61, 16)}), 'are one tensor')


def test_used_weights_of_whole_numbers_are_an_error(tmp_path):
    whole = {'transformer.h.0.mlp.c_fc.weight': np.zeros((16, 64), np.int8)}
    fails(changed(tmp_path, 'gpt2', tensors=whole), 'c_fc', 'is of type int8')


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e300])
def test_weights_that_are_not_finite_are_an_error(tmp_path, value):
    scale = np.full(16, value, np.float64)
    fails(changed(tmp_path, 'gpt2', tensors={'transformer.ln_f.weight': scale}), 'not finite')


def test_an_untied_model_without_its_head_is_read_without_one(tmp_path):
    folder = changed(tmp_path, 'llama', tensors={'lm_head.weight': None})
    assert not read_model(folder).config.token_head


def test_a_folder_that_is_none(tmp_path):
    fails(tmp_path / 'no', 'there is no folder')
    fails(tmp_path, 'holds no config.json')
    (tmp_path / 'config.json').write_text('{')
    fails(tmp_path, 'holds no JSON object')
