"""BERT, DistilBERT and ELECTRA in the Hugging Face layout.

ELECTRA's two parts are two checkpoints: a generator, which has the vocabulary's head, and a
discriminator with one logit a token. Both hold the embeddings that they share.
"""

from pretrain.huggingface.family import Family, Head, Key, fixed

_LAYERS = 'encoder/layers/'
_HEADS = ('token_head', 'pooler', 'classes', 'token_scores')
_TASK = 'the head of a fine-tuned task'


def _heads(name, prefixed=True, **fields):
    plain = {'token_head': False, 'pooler': False, 'classes': 0, 'token_scores': False}
    return Head(name, plain | fields, prefixed)


def _encoder(**fields):
    """What the three have in common."""
    return fixed(
        *_HEADS, norm_placement='post', final_norm=False, embedding_norm=True,
        logit_transform=True, logit_bias=True, initializer='truncated_normal', **fields,
    )  # fmt: skip


_KEYS = {
    'vocab_size': Key('vocabulary', 30522),
    'hidden_size': Key('width', 768),
    'num_hidden_layers': Key('encoder_layers', 12),
    'num_attention_heads': Key('heads', 12),
    'intermediate_size': Key('feedforward_width', 3072),
    'hidden_act': Key('activation', 'gelu'),
    'hidden_dropout_prob': Key('dropout', 0.1),
    'attention_probs_dropout_prob': Key('attention_dropout', 0.1),
    'max_position_embeddings': Key('max_positions', 512),
    'type_vocab_size': Key('segment_types', 2),
    'initializer_range': Key('stddev', 0.02),
    'layer_norm_eps': Key('norm_epsilon', 1e-12),
}
_MODULES = {
    'token_embedding': 'embeddings.word_embeddings',
    'position_embedding': 'embeddings.position_embeddings',
    'segment_embedding': 'embeddings.token_type_embeddings',
    'embedding_norm': 'embeddings.LayerNorm',
    f'{_LAYERS}attention/query': 'encoder.layer.{}.attention.self.query',
    f'{_LAYERS}attention/key': 'encoder.layer.{}.attention.self.key',
    f'{_LAYERS}attention/value': 'encoder.layer.{}.attention.self.value',
    f'{_LAYERS}attention/out': 'encoder.layer.{}.attention.output.dense',
    f'{_LAYERS}attention_norm': 'encoder.layer.{}.attention.output.LayerNorm',
    f'{_LAYERS}feedforward/up': 'encoder.layer.{}.intermediate.dense',
    f'{_LAYERS}feedforward/down': 'encoder.layer.{}.output.dense',
    f'{_LAYERS}feedforward_norm': 'encoder.layer.{}.output.LayerNorm',
}
_REQUIRED = {
    'position_embedding_type': 'absolute',
    'is_decoder': False,
    'add_cross_attention': False,
    'tie_word_embeddings': True,
}
_COUNTER = {r'embeddings\.position_ids$': 'a row of counted numbers'}
_WORDS = 'embeddings.word_embeddings.weight'


def _check(config):
    return None if config.segment_types else 'it has segments there: type_vocab_size=0'


def _check_electra(config):
    if config.token_head and config.activation != 'gelu_erf':
        return (
            "the generator's head has the exact GELU in transformers, whatever hidden_act says: "
            f'model.activation={config.activation!r} is another function'
        )
    return _check(config)


BERT = Family(
    model_type='bert',
    keys=_KEYS,
    fixed=_encoder(),
    required=_REQUIRED,
    heads=(
        _heads('BertForPreTraining', token_head=True, pooler=True, classes=2),
        _heads('BertForMaskedLM', token_head=True),
        _heads('BertForNextSentencePrediction', pooler=True, classes=2),
        _heads('BertModel', prefixed=False, pooler=True),
    ),
    prefix='bert.',
    roots=('cls.', 'classifier.', 'qa_outputs.'),
    modules=_MODULES
    | {
        'pooler': 'pooler.dense',
        'head/transform': 'cls.predictions.transform.dense',
        'head/norm': 'cls.predictions.transform.LayerNorm',
        'head': 'cls.predictions',
        'classifier': 'cls.seq_relationship',
    },
    left_out=_COUNTER | {r'^(classifier|qa_outputs)\.': _TASK},
    copies={
        r'^cls\.predictions\.decoder\.weight$': f'bert.{_WORDS}',
        r'^cls\.predictions\.decoder\.bias$': 'cls.predictions.bias',
    },
    find_heads=lambda names, fields: {
        'token_head': 'cls.predictions.transform.dense.weight' in names,
        'pooler': 'bert.pooler.dense.weight' in names,
        'classes': 2 if 'cls.seq_relationship.weight' in names else 0,
    },
    check=_check,
)

DISTILBERT = Family(
    model_type='distilbert',
    keys={
        'vocab_size': Key('vocabulary', 30522),
        'dim': Key('width', 768),
        'n_layers': Key('encoder_layers', 6),
        'n_heads': Key('heads', 12),
        'hidden_dim': Key('feedforward_width', 3072),
        'activation': Key('activation', 'gelu'),
        'dropout': Key('dropout', 0.1),
        'attention_dropout': Key('attention_dropout', 0.1),
        'max_position_embeddings': Key('max_positions', 512),
        'initializer_range': Key('stddev', 0.02),
    },
    fixed=_encoder(norm_epsilon=1e-12),
    aliases={
        'hidden_size': 'dim',
        'num_attention_heads': 'n_heads',
        'num_hidden_layers': 'n_layers',
    },
    required={'tie_word_embeddings': True},
    heads=(
        _heads('DistilBertForMaskedLM', token_head=True),
        _heads('DistilBertModel', prefixed=False),
    ),
    prefix='distilbert.',
    roots=('vocab_', 'pre_classifier.', 'classifier.', 'qa_outputs.'),
    modules={
        'token_embedding': 'embeddings.word_embeddings',
        'position_embedding': 'embeddings.position_embeddings',
        'embedding_norm': 'embeddings.LayerNorm',
        f'{_LAYERS}attention/query': 'transformer.layer.{}.attention.q_lin',
        f'{_LAYERS}attention/key': 'transformer.layer.{}.attention.k_lin',
        f'{_LAYERS}attention/value': 'transformer.layer.{}.attention.v_lin',
        f'{_LAYERS}attention/out': 'transformer.layer.{}.attention.out_lin',
        f'{_LAYERS}attention_norm': 'transformer.layer.{}.sa_layer_norm',
        f'{_LAYERS}feedforward/up': 'transformer.layer.{}.ffn.lin1',
        f'{_LAYERS}feedforward/down': 'transformer.layer.{}.ffn.lin2',
        f'{_LAYERS}feedforward_norm': 'transformer.layer.{}.output_layer_norm',
        'head/transform': 'vocab_transform',
        'head/norm': 'vocab_layer_norm',
        'head': 'vocab_projector',
    },
    left_out=_COUNTER | {r'^(pre_classifier|classifier|qa_outputs)\.': _TASK},
    copies={r'^vocab_projector\.weight$': f'distilbert.{_WORDS}'},
    find_heads=lambda names, fields: {'token_head': 'vocab_transform.weight' in names},
)

ELECTRA = Family(
    model_type='electra',
    keys=_KEYS
    | {
        'embedding_size': Key('embedding_width', 128),
        'hidden_size': Key('width', 256),
        'num_attention_heads': Key('heads', 4),
        'intermediate_size': Key('feedforward_width', 1024),
    },
    fixed=_encoder(),
    required=_REQUIRED,
    heads=(
        _heads('ElectraForMaskedLM', token_head=True),
        _heads('ElectraForPreTraining', token_scores=True),
        _heads('ElectraModel', prefixed=False),
    ),
    prefix='electra.',
    roots=('generator_', 'discriminator_', 'classifier.', 'qa_outputs.'),
    modules=_MODULES
    | {
        'embedding_projection': 'embeddings_project',
        'head/transform': 'generator_predictions.dense',
        'head/norm': 'generator_predictions.LayerNorm',
        'head': 'generator_lm_head',
        'scores/transform': 'discriminator_predictions.dense',
        'scores/logit': 'discriminator_predictions.dense_prediction',
    },
    left_out=_COUNTER | {r'^(classifier|qa_outputs)\.': _TASK},
    copies={r'^generator_lm_head\.weight$': f'electra.{_WORDS}'},
    find_heads=lambda names, fields: {
        'token_head': 'generator_predictions.dense.weight' in names,
        'token_scores': 'discriminator_predictions.dense.weight' in names,
    },
    check=_check_electra,
)
