"""Our transformer, its gradients, its optimizer and its decoding against transformers' own classes.

Random small models are built from config classes (nothing is downloaded), every parameter is moved
away from its initial 0 or 1 so that leaving one out shows, and the weights are copied into our tree.
"""

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
BERT = {
    'bert.embeddings.word_embeddings.weight': 'token_embedding/table',
    'bert.embeddings.position_embeddings.weight': 'position_embedding/table',
    'bert.embeddings.token_type_embeddings.weight': 'segment_embedding/table',
    'cls.predictions.bias': 'head/bias',
}
for theirs, ours in {  # with a weight and a bias
    'bert.embeddings.LayerNorm': 'embedding_norm/scale',
    'bert.encoder.layer.*.attention.self.query': 'encoder/layers/attention/query/kernel',
    'bert.encoder.layer.*.attention.self.key': 'encoder/layers/attention/key/kernel',
    'bert.encoder.layer.*.attention.self.value': 'encoder/layers/attention/value/kernel',
    'bert.encoder.layer.*.attention.output.dense': 'encoder/layers/attention/out/kernel',
    'bert.encoder.layer.*.attention.output.LayerNorm': 'encoder/layers/attention_norm/scale',
    'bert.encoder.layer.*.intermediate.dense': 'encoder/layers/feedforward/up/kernel',
    'bert.encoder.layer.*.output.dense': 'encoder/layers/feedforward/down/kernel',
    'bert.encoder.layer.*.output.LayerNorm': 'encoder/layers/feedforward_norm/scale',
    'cls.predictions.transform.dense': 'head/transform/kernel',
    'cls.predictions.transform.LayerNorm': 'head/norm/scale',
}.items():
    BERT |= {f'{theirs}.weight': ours, f'{theirs}.bias': f'{ours.rpartition("/")[0]}/bias'}
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
        T5[f'{block}.{last}.DenseReluDense.{letters}.weight'] = f'{layers}/feedforward/{name}/kernel'
    T5[f'{block}.{last}.layer_norm.weight'] = f'{layers}/feedforward_norm/scale'
    T5[f'{block}.0.SelfAttention.relative_attention_bias.weight'] = f'{stack}/relative_bias/table'
    T5[f'{stack}.final_layer_norm.weight'] = f'{stack}/final_norm/scale'


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
    model = bind(module, params)
    batch = contract.Batch(inputs, decoder_inputs, None, None)
    hidden = model.hidden(batch)
    return np.asarray(hidden), np.asarray(model.logits(hidden))


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


GPT2_FIELDS = {'decoder_layers': 3, 'width': 32, 'heads': 4, 'max_positions': 24}
LLAMA_FIELDS = {
    'decoder_layers': 3, 'width': 32, 'heads': 4, 'kv_heads': 2, 'feedforward_width': 40,
    'norm': 'rms', 'norm_epsilon': 1e-6, 'biases': False, 'positions': 'rotary',
    'rotary_theta': 500.0, 'activation': 'silu', 'gated': True,
}  # fmt: skip


def gpt2_peer(layers=3, positions=24, **changes):
    return moved(transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=V, n_embd=32, n_layer=layers, n_head=4, n_positions=positions,
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=0, eos_token_id=0,
    )), **changes)  # fmt: skip


def llama_arguments():
    return {
        'vocab_size': V, 'hidden_size': 32, 'intermediate_size': 40, 'num_hidden_layers': 3,
        'num_attention_heads': 4, 'num_key_value_heads': 2, 'rms_norm_eps': 1e-6,
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


def test_gpt2_with_right_padding():
    peer = gpt2_peer()
    module, params = ours_of(peer, GPT2, **GPT2_FIELDS)
    tokens, real = random_tokens(3, 24, seed=1), right_padded(24, [24, 13, 5])
    ours = run_ours(module, params, contract.Inputs(tokens, segments_BxL=real))
    assert_equal(ours, run_theirs(peer, input_ids=tokens, attention_mask=real), real)


@pytest.mark.parametrize('tied', [True, False])
def test_llama(tied):
    peer = llama_peer(tied)
    module, params = ours_of(peer, LLAMA, tied=tied, **LLAMA_FIELDS)
    tokens, real = random_tokens(3, 30), right_padded(30, [30, 18, 7])
    ours = run_ours(module, params, contract.Inputs(tokens, segments_BxL=real))
    assert_equal(ours, run_theirs(peer, input_ids=tokens, attention_mask=real), real)
    whole = run_ours(module, params, contract.Inputs(tokens))  # the path without a mask
    assert_equal(whole, run_theirs(peer, input_ids=tokens))


def test_qwen3_with_local_layers():
    """Query-key norm, heads wider than D / H, and a window of 5 in every second layer."""
    peer = moved(transformers.Qwen3ForCausalLM(transformers.Qwen3Config(
        **llama_arguments(), head_dim=12, tie_word_embeddings=False, use_sliding_window=True,
        sliding_window=5,
        layer_types=['full_attention', 'sliding_attention', 'full_attention'],
    )))  # fmt: skip
    module, params = ours_of(
        peer, LLAMA, **LLAMA_FIELDS, tied=False, head_width=12, query_key_norm=True,
        attention_window=5, window_every=2, window_offset=1,
    )  # fmt: skip
    tokens = random_tokens(3, 30)
    ours = run_ours(module, params, contract.Inputs(tokens))
    assert_equal(ours, run_theirs(peer, input_ids=tokens))


def test_bert():
    """Post-norm, two segments, padding, erf gelu, transformed and biased logits."""
    peer = moved(transformers.BertForMaskedLM(transformers.BertConfig(
        vocab_size=V, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=24, layer_norm_eps=1e-12,
    )))  # fmt: skip
    module, params = ours_of(
        peer, BERT, encoder_layers=3, width=32, heads=4, feedforward_width=48, max_positions=24,
        norm_placement='post', norm_epsilon=1e-12, embedding_norm=True, final_norm=False,
        segment_types=2, activation='gelu_erf', logit_transform=True, logit_bias=True,
    )  # fmt: skip
    tokens, real = random_tokens(3, 24), right_padded(24, [24, 17, 6])
    types = 1 - right_padded(24, [10, 8, 3])
    ours = run_ours(
        module, params, contract.Inputs(tokens, segments_BxL=real, types_BxL=types)
    )
    theirs = run_theirs(peer, input_ids=tokens, attention_mask=real, token_type_ids=types)
    assert_equal(ours, theirs, real)


@pytest.mark.parametrize('version', ['1.0', '1.1'])
def test_t5(version):
    """Rows longer than the last relative bucket's distance of 128, padding on both sides."""
    old = version == '1.0'
    peer = transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=V, d_model=32, d_kv=12, d_ff=48, num_layers=2, num_decoder_layers=3,
        num_heads=4, feed_forward_proj='relu' if old else 'gated-gelu', tie_word_embeddings=old,
        dropout_rate=0.0, decoder_start_token_id=0,
    ))  # fmt: skip
    if not old:  # transformers 5 ties the logits of a new model whatever its config says
        peer.lm_head.weight = torch.nn.Parameter(torch.zeros(V, 32))
    moved(peer)
    module, params = ours_of(
        peer, T5, encoder_layers=2, decoder_layers=3, width=32, heads=4, head_width=12,
        feedforward_width=48, norm='rms', norm_epsilon=1e-6, biases=False, positions='relative',
        activation='relu' if old else 'gelu', gated=not old, scale_attention=False, tied=old,
        scale_logits=old,
    )  # fmt: skip
    tokens, real = random_tokens(2, 150), right_padded(150, [150, 131])
    targets, real_targets = random_tokens(2, 140, seed=1), right_padded(140, [135, 140])
    ours = run_ours(
        module, params, contract.Inputs(tokens, segments_BxL=real),
        contract.Inputs(targets, segments_BxL=real_targets),
    )  # fmt: skip
    theirs = run_theirs(
        peer, 'decoder_hidden_states', input_ids=tokens, attention_mask=real,
        decoder_input_ids=targets, decoder_attention_mask=real_targets,
    )  # fmt: skip
    assert_equal(ours, theirs, real_targets)
    # Decoder rows without padding beside a padded encoder: the usual case in training.
    ours = run_ours(
        module, params, contract.Inputs(tokens, segments_BxL=real), contract.Inputs(targets)
    )
    theirs = run_theirs(
        peer, 'decoder_hidden_states', input_ids=tokens, attention_mask=real,
        decoder_input_ids=targets,
    )  # fmt: skip
    assert_equal(ours, theirs)


L, ROWS, STEPS, RUN = 15, 6, 5, 8
PEAK, WARMUP, FINAL, CLIP, DECAY = 3e-3, 2, 0.1, 1.0, 0.1
# Adam divides by the root of the second moment. The gradient of a key's bias is exactly zero
# (softmax does not see what is added to all logits of a query), so there it would divide rounding
# by rounding; this epsilon is well above rounding and below the gradients that mean something.
EPSILON = 1e-6


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


@pytest.mark.parametrize('accumulation', [1, 3])
def test_loss_and_gradients(accumulation):
    """The gradients are those that the train step hands to its optimizer."""
    peer, windows = gpt2_peer(2, L + 1), padded_windows(seed=0)
    loss = their_loss(peer, windows)
    loss.backward()
    theirs = to_tree({name: p.grad for name, p in peer.named_parameters()}, GPT2)

    zeros = lambda params: jax.tree.map(jnp.zeros_like, params)  # noqa: E731
    keep = optax.GradientTransformation(zeros, lambda g, state, params: (zeros(params), g))
    learner = gpt2_learner(accumulation)._replace(optimizer=keep)
    params = {'model': to_tree(dict(peer.named_parameters()), GPT2)}
    state = {'params': params, 'optimizer': keep.init(params), 'step': jnp.int32(0)}
    state, measured = jax.jit(train_step.train_step, static_argnums=0)(learner, state, windows)

    assert float(measured['loss']) == pytest.approx(loss.item(), rel=1e-5)
    norm = torch.stack([p.grad.norm() for p in peer.parameters()]).norm().item()
    assert float(measured['gradient_norm']) == pytest.approx(norm, rel=1e-5)

    def compare(path, ours, theirs):
        # Relative to the largest of each tensor: single elements may be sums that cancel. The
        # floor is for key biases, whose gradient is exactly zero but for rounding.
        atol = 1e-4 * np.abs(theirs).max() + 1e-7
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=atol, err_msg=str(path))

    jax.tree_util.tree_map_with_path(compare, state['optimizer']['model'], theirs)


def test_five_steps_of_adamw():
    peer = gpt2_peer(2, L + 1)
    learner = gpt2_learner(accumulation=1)
    params = {'model': to_tree(dict(peer.named_parameters()), GPT2)}
    state = {
        'params': params,
        'optimizer': learner.optimizer.init(params),
        'step': jnp.int32(0),
    }
    step = jax.jit(train_step.train_step, static_argnums=0)

    groups = [  # matrices and tables are decayed, biases and LayerNorm's gains are not
        {'params': [p for p in peer.parameters() if p.ndim > 1], 'weight_decay': DECAY},
        {'params': [p for p in peer.parameters() if p.ndim == 1], 'weight_decay': 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=PEAK, betas=(0.9, 0.95), eps=EPSILON)

    def height(number):
        cosine = 0.5 * (1 + math.cos(math.pi * max(0, number - WARMUP) / (RUN - WARMUP)))
        return min(1, number / WARMUP) * (FINAL + (1 - FINAL) * cosine)

    schedule = torch.optim.lr_scheduler.LambdaLR(adamw, height)
    norms = []
    for number in range(STEPS):
        windows = padded_windows(seed=number)
        state, measured = step(learner, state, windows)
        adamw.zero_grad()
        loss = their_loss(peer, windows)
        loss.backward()
        norms.append(torch.nn.utils.clip_grad_norm_(peer.parameters(), CLIP).item())
        adamw.step()
        schedule.step()
        assert float(measured['loss']) == pytest.approx(loss.item(), rel=1e-5)
        assert float(measured['gradient_norm']) == pytest.approx(norms[-1], rel=1e-4)
    assert max(norms) > 1.5 * CLIP, 'the clip must bite for this to test it'

    theirs = to_tree(dict(peer.named_parameters()), GPT2)
    start = params['model']['decoder']['layers']['feedforward']['up']['kernel']
    end = theirs['decoder']['layers']['feedforward']['up']['kernel']
    assert np.abs(end - start).mean() > 1e-3  # a hundred times the tolerance below

    def compare(path, ours, theirs):
        # Four steps of at most PEAK each: a relative difference of 1e-3 in one of them would show.
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5, err_msg=str(path))

    jax.tree_util.tree_map_with_path(compare, state['params']['model'], theirs)


@pytest.mark.parametrize('family', ['gpt2', 'llama'])
def test_greedy_generation_of_left_padded_prompts(family):
    """The same ids, first without an end, then with one that ends the first row early."""
    if family == 'gpt2':
        peer = gpt2_peer(stddev=0.3)
        module, params = ours_of(peer, GPT2, **GPT2_FIELDS)
    else:
        peer = llama_peer(tied=False, stddev=0.3)
        module, params = ours_of(peer, LLAMA, tied=False, **LLAMA_FIELDS)
    lengths, new = [7, 4, 1], 12
    real = right_padded(7, lengths)[:, ::-1].copy()
    prompts = random_tokens(3, 7) * real

    def ours(eos):
        return np.asarray(decoding.generate(
            module, params, jnp.asarray(prompts), jnp.asarray(lengths), jax.random.key(0),
            new_tokens=new, vocabulary_size=V, eos=eos,
        ))  # fmt: skip

    def theirs(eos):
        peer.generation_config.eos_token_id = eos
        made = peer.generate(
            torch.tensor(prompts, dtype=torch.long),
            attention_mask=torch.tensor(real, dtype=torch.long),
            do_sample=False, max_new_tokens=new, pad_token_id=eos or 0,
        )[:, 7:].numpy()  # fmt: skip
        rest = ((0, 0), (0, new - made.shape[1]))  # theirs stops where all rows have ended
        return np.pad(made, rest, constant_values=eos or 0)

    free = theirs(None)
    assert len(np.unique(free)) > 8, 'the rows must not be one repeated token'
    np.testing.assert_array_equal(ours(-1), free)
    eos = int(free[0, 3])
    ended = theirs(eos)
    assert (ended != free).any()
    np.testing.assert_array_equal(ours(eos), ended)
