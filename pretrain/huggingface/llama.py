"""Decoders like Llama's (Touvron et al. 2023), and Qwen3's with its norms of queries and keys."""

from pretrain.errors import UserError
from pretrain.huggingface.family import Family, Head, Key, fixed

_LAYERS = 'decoder/layers/'


def _head_width(config):
    return (config.get('hidden_size') or 0) // (config.get('num_attention_heads') or 1)


def _read(fields, config, names):
    # The older name goes before the newer one, and what stands inside before what stands outside.
    rope = config.get('rope_scaling') or config.get('rope_parameters') or {}
    if not isinstance(rope, dict) or any(isinstance(value, dict) for value in rope.values()):
        raise UserError(f'config.json says rope_parameters={rope!r}, which is not supported')
    kind = rope.get('rope_type', rope.get('type', 'default'))
    if kind != 'default':
        raise UserError(
            f"config.json says rope_type={kind!r}, which is not supported: 'default' is"
        )
    theta = rope.get('rope_theta', config.get('rope_theta', 10000.0))
    if isinstance(theta, bool) or not isinstance(theta, (int, float)) or theta <= 0:
        raise UserError(f'config.json says rope_theta={theta!r}, which should be a number above 0')
    biases = config.get('attention_bias', False), config.get('mlp_bias', False)
    if biases[0] != biases[1]:
        raise UserError(
            f'config.json says attention_bias={biases[0]} and mlp_bias={biases[1]}, which is not '
            'supported: both or none is'
        )
    return fields | {'rotary_theta': float(theta), 'biases': bool(biases[0])}


def _write(config, fields):
    config['rope_parameters'] = {'rope_type': 'default', 'rope_theta': fields['rotary_theta']}
    config['attention_bias'] = config['mlp_bias'] = fields['biases']
    return config


def _check(config):
    if config.width % config.heads:
        return f'Llama refuses width={config.width} with heads={config.heads}, whatever head_width'
    return None


_KEYS = {
    'vocab_size': Key('vocabulary'),
    'hidden_size': Key('width'),
    'num_hidden_layers': Key('decoder_layers'),
    'num_attention_heads': Key('heads'),
    'num_key_value_heads': Key('kv_heads', lambda config: config.get('num_attention_heads')),
    'head_dim': Key('head_width', _head_width),
    'intermediate_size': Key('feedforward_width'),
    'hidden_act': Key('activation', 'silu'),
    'rms_norm_eps': Key('norm_epsilon', 1e-6),
    'initializer_range': Key('stddev', 0.02),
    'attention_dropout': Key('attention_dropout', 0.0),
    'tie_word_embeddings': Key('tied', False),
}
_MODULES = {
    'token_embedding': 'embed_tokens',
    f'{_LAYERS}attention_norm': 'layers.{}.input_layernorm',
    f'{_LAYERS}attention/query': 'layers.{}.self_attn.q_proj',
    f'{_LAYERS}attention/key': 'layers.{}.self_attn.k_proj',
    f'{_LAYERS}attention/value': 'layers.{}.self_attn.v_proj',
    f'{_LAYERS}attention/out': 'layers.{}.self_attn.o_proj',
    f'{_LAYERS}feedforward_norm': 'layers.{}.post_attention_layernorm',
    f'{_LAYERS}feedforward/gate': 'layers.{}.mlp.gate_proj',
    f'{_LAYERS}feedforward/up': 'layers.{}.mlp.up_proj',
    f'{_LAYERS}feedforward/down': 'layers.{}.mlp.down_proj',
    'decoder/final_norm': 'norm',
    'head/logits': 'lm_head',
}

LLAMA = Family(
    model_type='llama',
    keys=_KEYS,
    fixed=fixed('rotary_theta', 'biases', norm='rms', positions='rotary', gated=True),
    required={'pretraining_tp': 1},
    heads=(
        Head('LlamaForCausalLM', {'token_head': True}),
        Head('LlamaModel', {'token_head': False}, prefixed=False),
    ),
    prefix='model.',
    roots=('lm_head.', 'score.'),
    modules=_MODULES,
    left_out={
        r'rotary_emb\.inv_freq$': 'the wavelengths, which are computed',
        r'^score\.': 'the head of a fine-tuned task',
    },
    copies={r'lm_head\.weight$': 'model.embed_tokens.weight'},
    find_heads=lambda names, fields: {'token_head': fields['tied'] or 'lm_head.weight' in names},
    check=_check,
    read=_read,
    write=_write,
)

_NORMS = {
    f'{_LAYERS}attention/query_norm': 'layers.{}.self_attn.q_norm',
    f'{_LAYERS}attention/key_norm': 'layers.{}.self_attn.k_norm',
}


def _read_qwen3(fields, config, names):
    if config.get('attention_bias'):
        raise UserError('config.json says attention_bias=True, which is not supported: False is')
    return _read(fields, config | {'attention_bias': False}, names)


def _write_qwen3(config, fields):
    config = _write(config, fields)
    del config['mlp_bias']
    return config | {'use_sliding_window': False}


QWEN3 = LLAMA._replace(
    model_type='qwen3',
    # 128 is transformers' own default, whatever the width.
    keys=_KEYS | {'head_dim': Key('head_width', 128)},
    fixed=LLAMA.fixed | {'query_key_norm': True, 'biases': False},
    required={'use_sliding_window': False},
    heads=(
        Head('Qwen3ForCausalLM', {'token_head': True}),
        Head('Qwen3Model', {'token_head': False}, prefixed=False),
    ),
    modules=_MODULES | _NORMS,
    check=lambda config: None,
    read=_read_qwen3,
    write=_write_qwen3,
)
