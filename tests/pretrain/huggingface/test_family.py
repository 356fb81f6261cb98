"""The tables of the families say something of every field that decides what a model computes."""

import dataclasses

import pytest

from pretrain.errors import UserError
from pretrain.huggingface import families, family
from pretrain.model.config import TransformerConfig

GPT2 = {'vocabulary': 61, 'decoder_layers': 2, 'width': 16, 'heads': 2}
BERT = {
    'vocabulary': 61, 'encoder_layers': 2, 'width': 16, 'heads': 2, 'norm_placement': 'post',
    'final_norm': False, 'embedding_norm': True, 'segment_types': 2, 'logit_transform': True,
    'logit_bias': True,
}  # fmt: skip
LLAMA = {
    'vocabulary': 61, 'decoder_layers': 2, 'width': 16, 'heads': 4, 'kv_heads': 2, 'norm': 'rms',
    'biases': False, 'positions': 'rotary', 'gated': True, 'activation': 'silu',
}  # fmt: skip


@pytest.mark.parametrize('name', families.FAMILIES)
def test_every_field_is_decided(name):
    own = families.FAMILIES[name]
    decided = {*family.FREE, *own.fixed, *(key.field for key in own.keys.values())}
    for head in own.heads:
        decided |= set(head.fields)
    read_by_hand = {'t5': {'activation', 'gated', 'tied', 'scale_logits'}}
    decided |= read_by_hand.get(name, set())
    decided |= {'rotary_theta', 'biases'} if name in ('llama', 'qwen3') else set()
    assert decided == {f.name for f in dataclasses.fields(TransformerConfig)}


@pytest.mark.parametrize(
    ('fields', 'name', 'head', 'left'),
    [
        (GPT2, 'gpt2', 'GPT2LMHeadModel', []),
        (GPT2 | {'head_width': 8, 'kv_heads': 2}, 'gpt2', 'GPT2LMHeadModel', []),
        (BERT | {'classes': 2}, 'bert', 'BertForPreTraining', []),
        (BERT | {'pooler': True}, 'bert', 'BertForMaskedLM', ['pooler']),
        (BERT | {'pooler': True, 'token_head': False}, 'bert', 'BertModel', []),
        (BERT | {'segment_types': 0, 'norm_epsilon': 1e-12}, 'distilbert',
         'DistilBertForMaskedLM', []),
        (BERT | {'token_head': False, 'token_scores': True}, 'electra',
         'ElectraForPreTraining', []),
        (BERT | {'embedding_width': 8, 'activation': 'gelu_erf'}, 'electra',
         'ElectraForMaskedLM', []),
        (LLAMA, 'llama', 'LlamaForCausalLM', []),
        (LLAMA | {'query_key_norm': True}, 'qwen3', 'Qwen3ForCausalLM', []),
        (LLAMA | {'biases': True}, 'llama', 'LlamaForCausalLM', []),
        (LLAMA | {'max_positions': 7, 'dropout': 0.5, 'remat': 'full'}, 'llama',
         'LlamaForCausalLM', []),
    ],
)  # fmt: skip
def test_the_family_that_computes_the_same_is_found(fields, name, head, left):
    found, raw, its_head, left_out = families.find(TransformerConfig(**fields))
    assert (found.model_type, its_head.name, left_out) == (name, head, left)
    names = [tensor.name for tensor in family.tensors(found, TransformerConfig(**fields), its_head)]
    again = family.read_config(found, raw, {family.full_name(found, n) for n in names})
    config = family.resolved(TransformerConfig(**fields)) | {'pooler': 'pooler' not in left}
    for field in set(config) - set(family.idle(again)) - {'pooler'}:
        assert family.resolved(again)[field] == config[field], field


def test_a_t5_with_a_tied_unscaled_head_is_written_and_read_again():
    """As transformers 5 itself makes a T5 1.1."""
    fields = {
        'vocabulary': 61, 'encoder_layers': 2, 'decoder_layers': 3, 'width': 16, 'heads': 2,
        'norm': 'rms', 'biases': False, 'positions': 'relative', 'scale_attention': False,
        'gated': True, 'activation': 'gelu_erf', 'feedforward_width': 24,
    }  # fmt: skip
    _, raw, _, _ = families.find(TransformerConfig(**fields))
    again = family.read_config(families.FAMILIES['t5'], raw, {'shared.weight'})
    assert again.tied
    assert not again.scale_logits
    assert (again.activation, again.gated) == ('gelu_erf', True)


@pytest.mark.parametrize(
    ('fields', 'says'),
    [
        (GPT2 | {'norm_placement': 'post'}, "gpt2: model.norm_placement='post'"),
        (GPT2 | {'attention_window': 8, 'global_every': 2}, 'gpt2: model.attention_window=8'),
        (GPT2 | {'head_width': 4}, 'gpt2: model.head_width=4'),
        (LLAMA | {'scale_attention': False}, 'llama: model.scale_attention=False'),
        (LLAMA | {'logit_bias': True}, 'llama: model.logit_bias=True'),
        (BERT | {'norm': 'rms'}, "bert: model.norm='rms'"),
        (BERT | {'embedding_width': 8}, 'electra: the generator'),
    ],
)
def test_a_model_of_no_family_is_refused(fields, says):
    with pytest.raises(UserError) as caught:
        families.find(TransformerConfig(**fields))
    assert 'no Hugging Face family computes this model' in str(caught.value)
    assert says in str(caught.value)


def test_gpt2_has_its_kernels_as_ours_and_an_untied_head_as_the_others():
    config = TransformerConfig(**GPT2, tied=False)
    found = {t.name: t for t in family.tensors(families.FAMILIES['gpt2'], config)}
    assert found['lm_head.weight'].turned
    assert found['lm_head.weight'].shape == (61, 16)
    assert not found['transformer.h.1.mlp.c_fc.weight'].turned
    assert found['transformer.h.1.mlp.c_fc.weight'].shape == (16, 64)
    assert found['transformer.h.1.attn.c_attn.bias'].shape == (48,)
