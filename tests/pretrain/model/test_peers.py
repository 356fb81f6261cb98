"""Decoders and T5, gradients, the optimizer and decoding against transformers' own classes.

Random small models are built from config classes (nothing is downloaded), every parameter is
moved away from its initial 0 or 1 so that leaving one out shows, and copied into our tree.
(Encoders: test_peers_encoders.py.)
"""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from configs.gpt import gpt
from objectives import contract
from pretrain import assembly, train_step
from pretrain.model import decoding
from pretrain.model.config import TransformerConfig
from pretrain.model.transformer import Transformer, bind, init

torch = pytest.importorskip('torch', reason='torch is missing: pip install -e .[test,peers]')
transformers = pytest.importorskip(
    'transformers', reason='transformers is missing: pip install -e .[test,peers]'
)

pytestmark = pytest.mark.peers

V = 61  # a prime: no padding of the table, nothing divides it
NORM_EPSILON = 1e-3  # large enough to show where it is not read
# float32 sums in another order differ by a few 1e-6 here; every mutation tried was above 1e-3.
TOLERANCE = 1e-4

# Their names -> ours, * for the number of a layer; several of ours: a fused matrix, in that order.
GPT2 = {
    'transformer.wte.weight': 'token_embedding/table',
    'transformer.wpe.weight': 'position_embedding/table',
    'transformer.ln_f.weight': 'decoder/final_norm/scale',
    'transformer.ln_f.bias': 'decoder/final_norm/bias',
    'transformer.h.*.ln_1.weight': 'decoder/layers/attention_norm/scale',
    'transformer.h.*.ln_1.bias': 'decoder/layers/attention_norm/bias',
    'transformer.h.*.attn.c_attn.weight': (
        'decoder/layers/attention/query/kernel '
        'decoder/layers/attention/key/kernel '
        'decoder/layers/attention/value/kernel'
    ),
    'transformer.h.*.attn.c_attn.bias': (
        'decoder/layers/attention/query/bias '
        'decoder/layers/attention/key/bias '
        'decoder/layers/attention/value/bias'
    ),
    'transformer.h.*.attn.c_proj.weight': 'decoder/layers/attention/out/kernel',
    'transformer.h.*.attn.c_proj.bias': 'decoder/layers/attention/out/bias',
    'transformer.h.*.ln_2.weight': 'decoder/layers/feedforward_norm/scale',
    'transformer.h.*.ln_2.bias': 'decoder/layers/feedforward_norm/bias',
    'transformer.h.*.mlp.c_fc.weight': 'decoder/layers/feedforward/up/kernel',
    'transformer.h.*.mlp.c_fc.bias': 'decoder/layers/feedforward/up/bias',
    'transformer.h.*.mlp.c_proj.weight': 'decoder/layers/feedforward/down/kernel',
    'transformer.h.*.mlp.c_proj.bias': 'decoder/layers/feedforward/down/bias',
}
LLAMA = {  # and Qwen3, which has the two norms of queries and keys as well
    'model.embed_tokens.weight': 'token_embedding/table',
    'model.norm.weight': 'decoder/final_norm/scale',
    'lm_head.weight': 'head/logits/kernel',
    'model.layers.*.input_layernorm.weight': 'decoder/layers/attention_norm/scale',
    'model.layers.*.self_attn.q_proj.weight': 'decoder/layers/attention/query/kernel',
    'model.layers.*.self_attn.k_proj.weight': 'decoder/layers/attention/key/kernel',
    'model.layers.*.self_attn.v_proj.weight': 'decoder/layers/attention/value/kernel',
    'model.layers.*.self_attn.o_proj.weight': 'decoder/layers/attention/out/kernel',
    'model.layers.*.self_attn.q_norm.weight': 'decoder/layers/attention/query_norm/scale',
    'model.layers.*.self_attn.k_norm.weight': 'decoder/layers/attention/key_norm/scale',
    'model.layers.*.post_attention_layernorm.weight': 'decoder/layers/feedforward_norm/scale',
    'model.layers.*.mlp.gate_proj.weight': 'decoder/layers/feedforward/gate/kernel',
    'model.layers.*.mlp.up_proj.weight': 'decoder/layers/feedforward/up/kernel',
    'model.layers.*.mlp.down_proj.weight': 'decoder/layers/feedforward/down/kernel',
}
T5 = {'shared.weight': 'token_embedding/table', 'lm_head.weight': 'head/logits/kernel'}
for stack, last in (('encoder', 1), ('decoder', 2)):
    block, layers = f'{stack}.block.*.layer', f'{stack}/layers'
    attentions = [(f'{block}.0.SelfAttention', 'attention')]
    attentions += [(f'{block}.1.EncDecAttention', 'cross_attention')] * (stack == 'decoder')
    for number, (theirs, ours) in enumerate(attentions):
        T5[f'{block}.{number}.layer_norm.weight'] = f'{layers}/{ours}_norm/scale'
        for letter, name in zip('qkvo', ('query', 'key', 'value', 'out')):
            T5[f'{theirs}.{letter}.weight'] = f'{layers}/{ours}/{name}/kernel'
    for letters, name in (('wi', 'up'), ('wi_0', 'gate'), ('wi_1', 'up'), ('wo', 'down')):
        theirs = f'{block}.{last}.DenseReluDense.{letters}'
        T5[f'{theirs}.weight'] = f'{layers}/feedforward/{name}/kernel'
    T5[f'{block}.{last}.layer_norm.weight'] = f'{layers}/feedforward_norm/scale'
    T5[f'{block}.0.SelfAttention.relative_attention_bias.weight'] = f'{stack}/relative_bias/table'
    T5[f'{stack}.final_layer_norm.weight'] = f'{stack}/final_norm/scale'


@pytest.fixture(autouse=True)
def _same_peers_in_every_run():
    torch.manual_seed(0)


def to_tree(tensors, names):
    """Their tensors by name -> our tree: kernels as (in, out), layers stacked along axis 0."""
    leaves = {}
    for name, tensor in tensors.items():
        paths = names[re.sub(r'\.\d+\.', '.*.', name, count=1)].split()
        array = np.array(tensor.detach().numpy())  # a copy: theirs changes in place
        if paths[0].endswith('kernel') and names is not GPT2:  # GPT-2's Conv1D is (in, out)
            array = array.T
        for path, part in zip(paths, np.split(array, len(paths), axis=-1)):
            leaves.setdefault(path, []).append(part)
    return traverse_util.unflatten_dict(
        {path: np.stack(p) if '/layers/' in path else p[0] for path, p in leaves.items()}, sep='/'
    )


def moved(peer, seed=0, stddev=0.15):
    """The peer in evaluation mode, noise added to every parameter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in peer.parameters():
            parameter += stddev * torch.randn(parameter.shape, generator=generator)
    return peer.eval()


def ours_of(peer, names, **fields):
    """(Transformer, its parameters copied from the peer); their trees must be equal."""
    module = Transformer(TransformerConfig(V, **fields))
    params = to_tree(dict(peer.named_parameters()), names)
    wanted = jax.eval_shape(lambda: init(module, jax.random.key(0)))
    assert jax.tree.map(jnp.shape, params) == jax.tree.map(jnp.shape, wanted)
    return module, params


def run_ours(module, params, inputs, decoder_inputs=None):
    """(hidden states, logits) of a contract.Inputs."""

    @jax.jit
    def forward(params, batch):
        model = bind(module, params)
        hidden = model.hidden(batch)
        return hidden, model.logits(hidden)

    batch = contract.Batch(inputs, decoder_inputs, None, None)
    return jax.tree.map(np.asarray, forward(params, batch))


def run_theirs(peer, hidden='hidden_states', **arguments):
    """(the last hidden states, logits) for numpy arguments."""
    arguments = {name: torch.tensor(x, dtype=torch.long) for name, x in arguments.items()}
    with torch.no_grad():
        out = peer(**arguments, output_hidden_states=True, use_cache=False)
    return out[hidden][-1].numpy(), out.logits.numpy()


def assert_equal(ours, theirs, real_BxL=None):
    """Both outputs agree at the real places, and are large enough for that to mean something."""
    for our, their in zip(ours, theirs):
        if real_BxL is not None:
            our, their = our[real_BxL == 1], their[real_BxL == 1]
        assert their.std() > 0.3
        np.testing.assert_allclose(our, their, rtol=0, atol=TOLERANCE)


def random_tokens(rows, length, seed=0):
    return np.random.default_rng(seed).integers(2, V, (rows, length)).astype(np.int32)


def right_padded(length, lengths):
    """int32, 1 for the first tokens of each row, then 0."""
    return (np.arange(length) < np.array(lengths)[:, None]).astype(np.int32)


GPT2_FIELDS = {
    'decoder_layers': 3, 'width': 32, 'heads': 4, 'max_positions': 24,
    'norm_epsilon': NORM_EPSILON,
}  # fmt: skip
LLAMA_FIELDS = {
    'decoder_layers': 3, 'width': 32, 'heads': 4, 'kv_heads': 2, 'feedforward_width': 40,
    'norm': 'rms', 'norm_epsilon': NORM_EPSILON, 'biases': False, 'positions': 'rotary',
    'rotary_theta': 500.0, 'activation': 'silu', 'gated': True,
}  # fmt: skip


def gpt2_peer(layers=3, positions=24, epsilon=NORM_EPSILON, **changes):
    return moved(transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=V, n_embd=32, n_layer=layers, n_head=4, n_positions=positions,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
        layer_norm_epsilon=epsilon,
    )), **changes)  # fmt: skip


def llama_arguments():
    return {
        'vocab_size': V, 'hidden_size': 32, 'intermediate_size': 40, 'num_hidden_layers': 3,
        'num_attention_heads': 4, 'num_key_value_heads': 2, 'rms_norm_eps': NORM_EPSILON,
        'rope_theta': 500.0, 'max_position_embeddings': 64, 'bos_token_id': 0, 'eos_token_id': 0,
    }  # fmt: skip


def llama_peer(tied, **changes):
    return moved(transformers.LlamaForCausalLM(transformers.LlamaConfig(
        **llama_arguments(), tie_word_embeddings=tied
    )), **changes)  # fmt: skip


def test_gpt2():
    peer = gpt2_peer()
    module, params = ours_of(peer, GPT2, **GPT2_FIELDS)
    tokens = random_tokens(3, 24)
    ours = run_ours(module, params, contract.Inputs(jnp.asarray(tokens)))
    assert_equal(ours, run_theirs(peer, input_ids=tokens))


def test_gpt2_with_padding():
    """Rows padded on the right, and one on the left, where only the mask hides the padding."""
    peer = gpt2_peer()
    module, params = ours_of(peer, GPT2, **GPT2_FIELDS)
    tokens, real = random_tokens(4, 24, seed=1), right_padded(24, [24, 13, 5, 17])
    real[3] = real[3, ::-1]
    positions = np.maximum(np.cumsum(real, axis=1) - 1, 0).astype(np.int32)
    ours = run_ours(module, params, contract.Inputs(tokens, positions, segments_BxL=real))
    theirs = run_theirs(peer, input_ids=tokens, attention_mask=real, position_ids=positions)
    assert_equal(ours, theirs, real)


@pytest.mark.parametrize('tied', [True, False])
def test_llama(tied):
    """Tied with padding; untied without, where ours builds no mask."""
    peer = llama_peer(tied)
    module, params = ours_of(peer, LLAMA, tied=tied, **LLAMA_FIELDS)
    tokens, real = random_tokens(3, 30), right_padded(30, [30, 18, 7] if tied else [30] * 3)
    ours = run_ours(module, params, contract.Inputs(tokens, segments_BxL=real if tied else None))
    assert_equal(ours, run_theirs(peer, input_ids=tokens, attention_mask=real), real)


def test_qwen3_with_local_layers():
    """Query-key norm, heads wider than D / H, and a window of 5 in every second layer."""
    peer = moved(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        **llama_arguments(), head_dim=12, tie_word_embeddings=False, use_sliding_window=True,
        sliding_window=5,
        layer_types=['full_attention', 'sliding_attention', 'full_attention'],
    )))  # fmt: skip
    module, params = ours_of(
        peer, LLAMA, **LLAMA_FIELDS, tied=False, head_width=12, query_key_norm=True,
        attention_window=5, global_every=2,
    )  # fmt: skip
    tokens = random_tokens(3, 30)
    ours = run_ours(module, params, contract.Inputs(tokens))
    assert_equal(ours, run_theirs(peer, input_ids=tokens))


@pytest.mark.parametrize('version', ['1.0', '1.1'])
def test_t5(version):
    """Rows longer than 128, from where on all distances share a bucket; padding on both sides."""
    old = version == '1.0'
    peer = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=V, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_decoder_layers=3,
        num_heads=4, feed_forward_proj='relu' if old else 'gated-gelu', tie_word_embeddings=old,
        dropout_rate=0.0, decoder_start_token_id=0, layer_norm_epsilon=NORM_EPSILON,
    ))  # fmt: skip
    if not old:  # transformers 5 ties the logits of a new model whatever its config says
        peer.lm_head.weight = torch.nn.Parameter(torch.zeros(V, 32))
    moved(peer, stddev=0.1)
    module, params = ours_of(
        peer, T5, encoder_layers=2, decoder_layers=3, width=32, heads=4, head_width=12,
        feedforward_width=48, norm='rms', norm_epsilon=NORM_EPSILON, biases=False,
        positions='relative', activation='relu' if old else 'gelu', gated=not old,
        scale_attention=False, tied=old, scale_logits=old,
    )  # fmt: skip
    tokens, real = random_tokens(2, 150), right_padded(150, [150, 131])
    targets = random_tokens(2, 140, seed=1)
    # 1.1: decoder rows without padding beside a padded encoder, the usual case in training.
    real_targets = right_padded(140, [135, 140] if old else [140, 140])
    ours = run_ours(
        module, params, contract.Inputs(tokens, segments_BxL=real),
        contract.Inputs(targets, segments_BxL=real_targets if old else None),
    )  # fmt: skip
    theirs = run_theirs(
        peer, 'decoder_hidden_states', input_ids=tokens, attention_mask=real,
        decoder_input_ids=targets, decoder_attention_mask=real_targets,
    )  # fmt: skip
    assert_equal(ours, theirs, real_targets)


L, ROWS, STEPS, RUN = 15, 6, 5, 8
PEAK, WARMUP, FINAL, CLIP, DECAY = 1e-2, 2, 0.1, 1.7, 0.1
# Adam divides by the root of the second moment. The gradient of a key's bias is exactly zero
# (softmax does not see what is added to all logits of a query), so there it would divide rounding
# (1e-9) by rounding; this epsilon is far above it and far below gradients that mean something.
EPSILON = 1e-4


def gpt2_learner(accumulation):
    """The learner that a recipe gives, for the size of gpt2_peer(2, L + 1)."""
    config = gpt(layers=2, width=32, heads=4, length=L)
    config.model.max_positions = L + 1  # their rows hold the last target as well
    config.steps, config.batch_size, config.accumulation = RUN, ROWS, accumulation
    config.optimizer.update(learning_rate=PEAK, epsilon=EPSILON, clip=CLIP, weight_decay=DECAY)
    config.optimizer.schedule.update(warmup=float(WARMUP), final=FINAL)
    vocabulary = contract.Vocabulary(
        size=V, table_size=V, pad=0, eos=1, unk=None, cls=None, sep=None, mask=None, modes=None,
        sentinels=None, word_start_V=np.ones(V, bool), bytes_V=np.ones(V, np.int32),
    )  # fmt: skip
    return assembly.make_learner(config, vocabulary)


def padded_windows(seed):
    """contract.Windows; rows end at different places, so parts of a batch differ in weight."""
    tokens = random_tokens(ROWS, L + 1, seed)
    real = right_padded(L + 1, [L + 1, 9, L + 1, 4, 12, L + 1])
    documents = np.where(real == 1, 0, contract.PADDING).astype(np.int32)
    return contract.Windows(tokens, documents, documents, np.arange(ROWS, dtype=np.int32))


def their_loss(peer, windows):
    """transformers' own loss: it shifts the labels itself and leaves out those of -100."""
    tokens = torch.tensor(windows.tokens_BxW, dtype=torch.long)
    padded = torch.tensor(windows.documents_BxW == contract.PADDING)
    return peer(input_ids=tokens, labels=tokens.masked_fill(padded, -100)).loss


def remembering(optimizer):
    """The optimizer, with the gradients that it was given last beside its state."""

    def init(params):
        return jax.tree.map(jnp.zeros_like, params), optimizer.init(params)

    def update(gradients, state, params):
        updates, inner = optimizer.update(gradients, state[1], params)
        return updates, (gradients, inner)

    return optax.GradientTransformation(init, update)


def height(number):
    """The learning rate of a step as a part of its peak: a warm-up times half a cosine."""
    cosine = 0.5 * (1 + math.cos(math.pi * max(0, number - WARMUP) / (RUN - WARMUP)))
    return min(1, number / WARMUP) * (FINAL + (1 - FINAL) * cosine)


def assert_trees_equal(ours, theirs, atol):
    """Every tensor to within atol(theirs)."""

    def compare(path, our, their):
        name = jax.tree_util.keystr(path, simple=True, separator='/')
        np.testing.assert_allclose(our, their, rtol=0, atol=atol(their), err_msg=name)

    jax.tree_util.tree_map_with_path(compare, ours, theirs)


@pytest.mark.parametrize('accumulation', [1, 3])
def test_five_steps_of_adamw(accumulation):
    """Loss, all gradients and their norm at every step, and the parameters after the last."""
    peer = gpt2_peer(2, L + 1, epsilon=1e-5)  # the recipe's
    learner = gpt2_learner(accumulation)
    learner = learner._replace(optimizer=remembering(learner.optimizer))
    start = {'model': to_tree(dict(peer.named_parameters()), GPT2)}
    state = {'params': start, 'optimizer': learner.optimizer.init(start), 'step': jnp.int32(0)}
    # Compiled without LLVM's optimizations, in half the time; the sums are the same.
    quickly = {'xla_backend_optimization_level': 0}
    step = jax.jit(functools.partial(train_step.train_step, learner), compiler_options=quickly)

    groups = [  # matrices and tables are decayed, biases and LayerNorm's gains are not
        {'params': [p for p in peer.parameters() if p.ndim > 1], 'weight_decay': DECAY},
        {'params': [p for p in peer.parameters() if p.ndim == 1], 'weight_decay': 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), eps=EPSILON)
    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, height)
    norms = []
    for number in range(STEPS):
        windows = padded_windows(seed=number)
        state, measured = step(state, windows)
        adamw.zero_grad()
        loss = their_loss(peer, windows)
        loss.backward()
        assert float(measured['loss']) == pytest.approx(loss.item(), rel=1e-5)
        # Relative to the largest of each tensor, since an element may be a sum that cancels. The
        # floor is for the biases of keys: theirs is rounding of about 1e-8, not a gradient.
        gradients = to_tree({name: p.grad for name, p in peer.named_parameters()}, GPT2)
        assert_trees_equal(
            state['optimizer'][0]['model'], gradients, lambda x: 1e-4 * np.abs(x).max() + 1e-7
        )
        norms.append(torch.nn.utils.clip_grad_norm_(peer.parameters(), CLIP).item())
        assert float(measured['gradient_norm']) == pytest.approx(norms[-1], rel=1e-5)
        adamw.step()
        schedule.step()

    # Adam hardly sees the scale of gradients: a wrong clip shows beside steps that need none.
    assert min(norms) < 0.9 * CLIP < 1.1 * CLIP < max(norms)
    theirs = to_tree(dict(peer.named_parameters()), GPT2)
    move = theirs['token_embedding']['table'] - start['model']['token_embedding']['table']
    assert np.abs(move).max() > 1e-2  # so that a thousandth of what they moved would show
    assert_trees_equal(state['params']['model'], theirs, lambda x: 1e-5)


@pytest.mark.parametrize('family', ['gpt2', 'llama'])
def test_greedy_generation_of_left_padded_prompts(family):
    """The same ids, where one row ends early and is filled up and another goes on to the end."""
    if family == 'gpt2':
        peer = gpt2_peer(stddev=0.3, seed=1)
        module, params = ours_of(peer, GPT2, **GPT2_FIELDS)
    else:
        peer = llama_peer(tied=False, stddev=0.3, seed=0)
        module, params = ours_of(peer, LLAMA, tied=False, **LLAMA_FIELDS)
    lengths, new = [7, 4, 1], 12
    real = right_padded(7, lengths)[:, ::-1].copy()
    prompts = random_tokens(3, 7) * real

    def theirs(eos):
        peer.generation_config.eos_token_id = eos
        out = peer.generate(
            torch.tensor(prompts, dtype=torch.long),
            attention_mask=torch.tensor(real, dtype=torch.long), do_sample=False,
            max_new_tokens=new, pad_token_id=eos or 0, output_scores=True,
            return_dict_in_generate=True,
        )  # fmt: skip
        best_Nx2xB = torch.stack([scores.topk(2).values.T for scores in out.scores])
        return out.sequences[:, 7:].numpy(), (best_Nx2xB[:, 0] - best_Nx2xB[:, 1]).min().item()

    free, margin = theirs(None)
    assert margin > 10 * TOLERANCE, 'rounding must not decide between two tokens'
    eos = next(int(token) for token in free[0, 2:] if not (free == token).any(axis=1).all())
    ended, _ = theirs(eos)
    assert ended.shape == free.shape, 'one row must go on to the end'
    assert (ended != free).any(), 'and one must not'
    assert len(np.unique(ended)) > 8, 'rows of one repeated token would show little'
    ours = decoding.generate(
        module, params, jnp.asarray(prompts), jnp.asarray(lengths), jax.random.key(0),
        new_tokens=new, vocabulary_size=V, eos=eos,
    )  # fmt: skip
    np.testing.assert_array_equal(ours, ended)
