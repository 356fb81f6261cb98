"""Our encoders and their heads against transformers' own classes, as in test_peers.py."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from objectives import contract
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, bind, init

torch = pytest.importorskip('torch', reason='torch is missing: pip install -e .[test,peers]')
transformers = pytest.importorskip(
    'transformers', reason='transformers is missing: pip install -e .[test,peers]'
)

pytestmark = pytest.mark.peers

V = 61  # a prime: no padding of the table, nothing divides it
L = 24
NORM_EPSILON = 1e-3  # large enough to show where it is not read
TOLERANCE = 1e-4  # float32 sums in another order differ by a few 1e-6

# Their modules -> ours, * for the number of a layer; several of ours: a fused matrix.
BERT = {
    'embeddings.word_embeddings': 'token_embedding',
    'embeddings.position_embeddings': 'position_embedding',
    'embeddings.token_type_embeddings': 'segment_embedding',
    'embeddings.LayerNorm': 'embedding_norm',
    'embeddings_project': 'embedding_projection',
    'encoder.layer.*.attention.self.query': 'encoder/layers/attention/query',
    'encoder.layer.*.attention.self.key': 'encoder/layers/attention/key',
    'encoder.layer.*.attention.self.value': 'encoder/layers/attention/value',
    'encoder.layer.*.attention.output.dense': 'encoder/layers/attention/out',
    'encoder.layer.*.attention.output.LayerNorm': 'encoder/layers/attention_norm',
    'encoder.layer.*.intermediate.dense': 'encoder/layers/feedforward/up',
    'encoder.layer.*.output.dense': 'encoder/layers/feedforward/down',
    'encoder.layer.*.output.LayerNorm': 'encoder/layers/feedforward_norm',
    'pooler.dense': 'pooler',
    'cls.predictions': 'head',
    'cls.predictions.transform.dense': 'head/transform',
    'cls.predictions.transform.LayerNorm': 'head/norm',
    'cls.seq_relationship': 'classifier',
    'generator_predictions.dense': 'head/transform',
    'generator_predictions.LayerNorm': 'head/norm',
    'generator_lm_head': 'head',
    'discriminator_predictions.dense': 'scores/transform',
    'discriminator_predictions.dense_prediction': 'scores/logit',
}
DISTILBERT = BERT | {
    'transformer.layer.*.attention.q_lin': 'encoder/layers/attention/query',
    'transformer.layer.*.attention.k_lin': 'encoder/layers/attention/key',
    'transformer.layer.*.attention.v_lin': 'encoder/layers/attention/value',
    'transformer.layer.*.attention.out_lin': 'encoder/layers/attention/out',
    'transformer.layer.*.sa_layer_norm': 'encoder/layers/attention_norm',
    'transformer.layer.*.ffn.lin1': 'encoder/layers/feedforward/up',
    'transformer.layer.*.ffn.lin2': 'encoder/layers/feedforward/down',
    'transformer.layer.*.output_layer_norm': 'encoder/layers/feedforward_norm',
    'vocab_transform': 'head/transform',
    'vocab_layer_norm': 'head/norm',
    'vocab_projector': 'head',
}
MODERNBERT = {
    'embeddings.tok_embeddings': 'token_embedding',
    'embeddings.norm': 'embedding_norm',
    'layers.*.attn_norm': 'encoder/layers/attention_norm',
    'layers.*.attn.Wqkv': (
        'encoder/layers/attention/query encoder/layers/attention/key encoder/layers/attention/value'
    ),
    'layers.*.attn.Wo': 'encoder/layers/attention/out',
    'layers.*.mlp_norm': 'encoder/layers/feedforward_norm',
    'layers.*.mlp.Wi': 'encoder/layers/feedforward/gate encoder/layers/feedforward/up',
    'layers.*.mlp.Wo': 'encoder/layers/feedforward/down',
    'final_norm': 'encoder/final_norm',
    'head.dense': 'head/transform',
    'head.norm': 'head/norm',
    'decoder': 'head',
}
SHAPE = {'encoder_layers': 3, 'width': 32, 'heads': 4, 'feedforward_width': 48}
BERT_FIELDS = SHAPE | {
    'max_positions': L, 'norm_placement': 'post', 'norm_epsilon': NORM_EPSILON,
    'embedding_norm': True, 'final_norm': False, 'segment_types': 2, 'activation': 'gelu_erf',
    'logit_transform': True, 'logit_bias': True,
}  # fmt: skip
BERT_ARGUMENTS = {
    'vocab_size': V, 'hidden_size': 32, 'num_hidden_layers': 3, 'num_attention_heads': 4,
    'intermediate_size': 48, 'max_position_embeddings': L, 'layer_norm_eps': NORM_EPSILON,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _same_peers_in_every_run():
    torch.manual_seed(0)


def moved(peer):
    """The peer in evaluation mode, noise added to every parameter."""
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter += 0.15 * torch.randn(parameter.shape)
    return peer.eval()


def to_tree(tensors, modules):
    """Their tensors by name -> our tree: kernels as (in, out), layers stacked along axis 0."""
    leaves = {}
    for name, tensor in tensors.items():
        module, _, leaf = re.sub(r'\.\d+\.', '.*.', name).rpartition('.')
        array = np.array(tensor.detach().numpy())
        paths = modules[module].split()
        if leaf == 'weight' and 'norm' in paths[0]:
            leaf = 'scale'
        elif leaf == 'weight':
            leaf = 'table' if paths[0].endswith('_embedding') else 'kernel'
        if leaf == 'kernel':
            array = array.T
        for path, part in zip(paths, np.split(array, len(paths), axis=-1)):
            leaves.setdefault(f'{path}/{leaf}', []).append(part)
    return traverse_util.unflatten_dict(
        {path: np.stack(p) if '/layers/' in path else p[0] for path, p in leaves.items()}, sep='/'
    )


def bound(peer, modules, extra=(), **fields):
    """Our model with the peer's parameters; `extra` come before them, prefixes do not count."""
    module = Transformer(TransformerConfig(V, **fields))
    prefix = f'{peer.base_model_prefix}.'
    named = {name.removeprefix(prefix): p for name, p in peer.named_parameters()}
    params = to_tree(dict(extra) | named, modules)
    wanted = jax.eval_shape(lambda: init(module, jax.random.key(0)))
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, wanted)
    return bind(module, jax.tree.map(jnp.asarray, params))


def rows(types=True):
    """(contract.Inputs, the same for a peer, which places are real)."""
    tokens = np.random.default_rng(0).integers(2, V, (3, L)).astype(np.int32)
    real = (np.arange(L) < np.array([[L], [17], [6]])).astype(np.int32)
    types_BxL = (np.arange(L) >= np.array([[10], [8], [3]])).astype(np.int32) if types else None
    theirs = {'input_ids': tokens, 'attention_mask': real}
    theirs |= {'token_type_ids': types_BxL} if types else {}
    theirs = {name: torch.tensor(x, dtype=torch.long) for name, x in theirs.items()}
    return contract.Inputs(tokens, segments_BxL=real, types_BxL=types_BxL), theirs, real == 1


def assert_equal(ours, theirs, real=None):
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    if real is not None:
        ours, theirs = ours[real], theirs[real]
    assert theirs.std() > 0.1
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=TOLERANCE)


def compare(model, peer, heads, types=True):
    """Last hidden states and heads: {our head: (field of their output, is it one a place?)}."""
    inputs, theirs, real = rows(types)
    hidden = jax.jit(model.hidden)(contract.Batch(inputs, None, None, None))
    assert_equal(hidden, peer.base_model(**theirs).last_hidden_state, real)
    output = peer(**theirs)
    for head, (field, places) in heads.items():
        ours = jax.jit(getattr(model, head))(hidden)
        assert_equal(ours, getattr(output, field), real if places else None)


def test_bert_with_next_sentence():
    """Post-norm, two segments, padding, erf gelu, transformed and biased logits, pooler."""
    peer = moved(transformers.BertForPreTraining(transformers.BertConfig(**BERT_ARGUMENTS)))
    model = bound(peer, BERT, **BERT_FIELDS, classes=2)
    heads = {
        'logits': ('prediction_logits', True),
        'classify': ('seq_relationship_logits', False),
    }
    compare(model, peer, heads)


def test_distilbert():
    peer = moved(transformers.DistilBertForMaskedLM(transformers.DistilBertConfig(
        vocab_size=V, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=L,
    )))  # fmt: skip
    model = bound(peer, DISTILBERT, **(BERT_FIELDS | {'segment_types': 0, 'norm_epsilon': 1e-12}))
    compare(model, peer, {'logits': ('logits', True)}, types=False)


@pytest.mark.parametrize('embedding_width', [20, 32])
@pytest.mark.parametrize('part', ['generator', 'discriminator'])
def test_electra(part, embedding_width):
    """Tables narrower than the stack, and as wide: then nothing lies between them."""
    config = transformers.ElectraConfig(**BERT_ARGUMENTS, embedding_size=embedding_width)
    fields = BERT_FIELDS | {'embedding_width': embedding_width}
    if part == 'generator':
        peer = moved(transformers.ElectraForMaskedLM(config))
        compare(bound(peer, BERT, **fields), peer, {'logits': ('logits', True)})
    else:
        peer = moved(transformers.ElectraForPreTraining(config))
        model = bound(peer, BERT, **fields, token_head=False, token_scores=True)
        compare(model, peer, {'score': ('logits', True)})


@pytest.mark.parametrize('window', [4, 5])
def test_modernbert(window):
    """Every third layer sees all, with its own wavelengths; no norm before the first attention."""
    peer = moved(transformers.ModernBertForMaskedLM(transformers.ModernBertConfig(
        vocab_size=V, hidden_size=32, intermediate_size=48, num_hidden_layers=5,
        num_attention_heads=4, norm_eps=NORM_EPSILON, local_attention=window, pad_token_id=0,
        bos_token_id=0, eos_token_id=0, cls_token_id=0, sep_token_id=0,
        rope_parameters={
            'full_attention': {'rope_type': 'default', 'rope_theta': 500.0},
            'sliding_attention': {'rope_type': 'default', 'rope_theta': 20.0},
        },
    )))  # fmt: skip
    model = bound(
        peer, MODERNBERT,
        # Ours has a row for the norm that theirs leaves out; it must not be read.
        extra={'layers.0.attn_norm.weight': torch.full((32,), torch.nan)},
        **(SHAPE | {'encoder_layers': 5}), norm_bias=False, norm_epsilon=NORM_EPSILON,
        embedding_norm=True, first_norm=False, biases=False, positions='rotary',
        rotary_theta=500.0, rotary_theta_local=20.0, activation='gelu_erf', gated=True,
        attention_window=window, global_every=3, logit_transform=True, logit_bias=True,
    )  # fmt: skip
    compare(model, peer, {'logits': ('logits', True)}, types=False)
