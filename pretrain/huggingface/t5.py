"""T5 1.0 and 1.1 (FLAN-T5) in the Hugging Face layout.

`tie_word_embeddings` stands for two things there: whether the logits use the embedding table, and
whether the decoder's states are scaled before them.
"""

from pretrain.errors import UserError
from pretrain.huggingface.family import ACTIVATIONS, Family, Head, Key, Unfit, fixed

_MODULES, _GATED = {'token_embedding': 'shared', 'head/logits': 'lm_head'}, {}
for _stack, _last in (('encoder', 1), ('decoder', 2)):
    _block, _layers = f'{_stack}.block.{{}}.layer', f'{_stack}/layers'
    _first = f'{_stack}.block.0.layer.0'
    _attentions = [(f'{_block}.0.SelfAttention', 'attention')]
    if _stack == 'decoder':
        _attentions.append((f'{_block}.1.EncDecAttention', 'cross_attention'))
    for _number, (_theirs, _ours) in enumerate(_attentions):
        _MODULES[f'{_layers}/{_ours}_norm'] = f'{_block}.{_number}.layer_norm'
        for _letter, _name in zip('qkvo', ('query', 'key', 'value', 'out')):
            _MODULES[f'{_layers}/{_ours}/{_name}'] = f'{_theirs}.{_letter}'
    # The input matrix, or where there is a gate the gate and the input matrix.
    _GATED |= {
        f'{_layers}/feedforward/gate': f'{_block}.{_last}.DenseReluDense.wi_0',
        f'{_layers}/feedforward/up': f'{_block}.{_last}.DenseReluDense.wi_1',
    }
    _dense = f'{_block}.{_last}.DenseReluDense'
    _MODULES |= {
        f'{_layers}/feedforward_norm': f'{_block}.{_last}.layer_norm',
        f'{_layers}/feedforward/up': f'{_dense}.wi',
        f'{_layers}/feedforward/down': f'{_dense}.wo',
        f'{_stack}/relative_bias': f'{_first}.SelfAttention.relative_attention_bias',
        f'{_stack}/final_norm': f'{_stack}.final_layer_norm',
    }


def _read(fields, config, names):
    kind = config.get('feed_forward_proj', 'relu')
    gate, _, activation = str(kind).rpartition('-')
    # transformers takes 'gated-gelu' for the tanh form.
    activation = 'gelu_new' if kind == 'gated-gelu' else activation
    # Two keys that follow from it, but go before it where they stand in the file.
    activation = config.get('dense_act_fn') or activation
    gated = gate == 'gated' if config.get('is_gated_act') is None else config['is_gated_act']
    if gate not in ('', 'gated') or activation not in list(ACTIVATIONS):
        raise UserError(
            f"config.json says feed_forward_proj={kind!r}: 'relu' and 'gated-gelu' are supported"
        )
    tied = config.get('tie_word_embeddings') is not False
    scaled = bool(config.get('scale_decoder_outputs', tied))
    if not scaled and 'lm_head.weight' in names:  # transformers 5 writes True for T5 1.1, too
        tied = False
    return fields | {
        'activation': ACTIVATIONS[activation],
        'gated': bool(gated),
        'tied': tied,
        'scale_logits': scaled,
        'dropout_inside': True,
        'dropout_final': True,
        'dropout_broadcast': True,
        'attention_dropout': fields['dropout'],
        'initializer': 'fan_in',
    }


def _write(config, fields):
    if fields['scale_logits'] and not fields['tied']:
        raise Unfit('model.scale_logits=True and tied=False')
    if fields['tied'] and not fields['scale_logits']:  # releases before 5 cannot say that
        config = config | {'scale_decoder_outputs': False}
    kind = next(name for name, ours in ACTIVATIONS.items() if ours == fields['activation'])
    if fields['gated']:
        # 'gated-gelu' means the tanh form there; the exact one has a second name.
        names = {'gelu': 'gelu', 'gelu_erf': 'gelu_python'}
        kind = f'gated-{names.get(fields["activation"], kind)}'
    return config | {'feed_forward_proj': kind, 'tie_word_embeddings': fields['tied']}


def _check(config):
    if not (config.encoder_layers and config.decoder_layers):
        return 'T5 has an encoder and a decoder'
    if config.relative_buckets < 4 or config.relative_distance <= config.relative_buckets // 2:
        return (
            f'{config.relative_buckets} relative buckets do not divide distances up to '
            f'{config.relative_distance}'
        )
    return None


T5 = Family(
    model_type='t5',
    keys={
        'vocab_size': Key('vocabulary', 32128),
        'd_model': Key('width', 512),
        'd_kv': Key('head_width', 64),
        'd_ff': Key('feedforward_width', 2048),
        'num_layers': Key('encoder_layers', 6),
        'num_decoder_layers': Key('decoder_layers', lambda config: config.get('num_layers', 6)),
        'num_heads': Key('heads', 8),
        'relative_attention_num_buckets': Key('relative_buckets', 32),
        'relative_attention_max_distance': Key('relative_distance', 128),
        'layer_norm_epsilon': Key('norm_epsilon', 1e-6),
        'dropout_rate': Key('dropout', 0.1),
    },
    fixed=fixed(
        'activation',
        'gated',
        'tied',
        'scale_logits',
        norm='rms',
        biases=False,
        positions='relative',
        scale_attention=False,
    ),
    heads=(Head('T5ForConditionalGeneration', {'token_head': True}),),
    aliases={
        'hidden_size': 'd_model',
        'num_attention_heads': 'num_heads',
        'num_hidden_layers': 'num_layers',
        'head_dim': 'd_kv',
    },
    roots=('lm_head.',),
    modules=lambda config: _MODULES | (_GATED if config.gated else {}),
    left_out={
        r'EncDecAttention\.relative_attention_bias\.weight$': 'a bias that no layer reads',
    },
    copies={
        r'^(encoder|decoder)\.embed_tokens\.weight$': 'shared.weight',
        r'^lm_head\.weight$': 'shared.weight',
    },
    read=_read,
    write=_write,
    check=_check,
)
