"""GPT-2 in the Hugging Face layout: fused queries, keys and values, kernels as (in, out)."""

from pretrain.huggingface.family import Family, Head, Key, fixed

_LAYERS = 'decoder/layers/'
_ATTENTION = ' '.join(f'{_LAYERS}attention/{name}' for name in ('query', 'key', 'value'))

GPT2 = Family(
    model_type='gpt2',
    keys={
        'vocab_size': Key('vocabulary', 50257),
        'n_positions': Key('max_positions', 1024),
        'n_embd': Key('width', 768),
        'n_layer': Key('decoder_layers', 12),
        'n_head': Key('heads', 12),
        'n_inner': Key('feedforward_width', lambda config: 4 * (config.get('n_embd') or 768)),
        'activation_function': Key('activation', 'gelu_new'),
        'layer_norm_epsilon': Key('norm_epsilon', 1e-5),
        'initializer_range': Key('stddev', 0.02),
        'resid_pdrop': Key('dropout', 0.1),
        'attn_pdrop': Key('attention_dropout', 0.1),
        'tie_word_embeddings': Key('tied', True),
    },
    fixed=fixed(residual_scale=True),
    required={
        'scale_attn_weights': True,
        'scale_attn_by_inverse_layer_idx': False,
        'reorder_and_upcast_attn': False,
        'add_cross_attention': False,
    },
    aliases={
        'hidden_size': 'n_embd',
        'max_position_embeddings': 'n_positions',
        'num_attention_heads': 'n_head',
        'num_hidden_layers': 'n_layer',
    },
    heads=(
        Head('GPT2LMHeadModel', {'token_head': True}),
        Head('GPT2Model', {'token_head': False}, prefixed=False),
    ),
    prefix='transformer.',
    roots=('lm_head.', 'score.', 'classifier.'),
    modules={
        'token_embedding': 'wte',
        'position_embedding': 'wpe',
        f'{_LAYERS}attention_norm': 'h.{}.ln_1',
        _ATTENTION: 'h.{}.attn.c_attn',
        f'{_LAYERS}attention/out': 'h.{}.attn.c_proj',
        f'{_LAYERS}feedforward_norm': 'h.{}.ln_2',
        f'{_LAYERS}feedforward/up': 'h.{}.mlp.c_fc',
        f'{_LAYERS}feedforward/down': 'h.{}.mlp.c_proj',
        'decoder/final_norm': 'ln_f',
        'head/logits': 'lm_head',
    },
    kernels_in_out=True,
    left_out={
        r'h\.\d+\.attn\.(bias|masked_bias)$': 'the causal mask, which is computed',
        r'^(score|classifier)\.': 'the head of a fine-tuned task',
    },
    # A tied head comes with the table, whichever class has saved it.
    find_heads=lambda names, fields: {'token_head': fields['tied'] or 'lm_head.weight' in names},
    copies={r'lm_head\.weight$': 'transformer.wte.weight'},
    write=lambda config, fields: config | {'embd_pdrop': config['resid_pdrop']},
)
