"""A hundred training steps here and in PyTorch, from the same weights: the same loss at each step.

    pip install -e .[peers]
    python -m benchmarks.training_parity --out=docs

For GPT-2, BERT (masked LM and next sentence) and T5 a small model is drawn by transformers, saved,
and read as pretrain.convert reads it. Then our jitted train step and a PyTorch loop over the
transformers model get the same batches (real text, corrupted by our objective) and the same
settings: AdamW, warm-up and linear decay, clipping, no dropout, float32. The loss of PyTorch's side
is transformers' own, from its `labels`. A third run is the control: PyTorch's again, from weights
moved by one part in ten million, which is what rounding alone makes of a hundred steps. Writes
training-parity.json and .png, prints a table; exit code 1 where our loss differs from PyTorch's by
more than 1e-3 nats at any step.
"""

import argparse
import copy
import datetime
import functools
import json
import sys
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from benchmarks.keep_curves import processor
from pretrain import assembly, corpora, train_step
from pretrain.data import loader
from pretrain.huggingface import recipe
from pretrain.huggingface.reading import read_model

LENGTH, ROWS, PIECES = 64, 16, 4096
WARMUP, CLIP, DECAY, EPSILON = 10, 1.0, 0.01, 1e-6
# T5 attends without scaling by the root of the width: at 1e-3 rounding alone grows to 1e-2 nats.
PEAKS = {'gpt2': 1e-3, 'bert': 1e-3, 't5': 3e-4}
TOLERANCE = 1e-3


def main():
    """Trains the three, writes the files, prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--steps', type=int, default=100)
    parser.add_argument('--out', default='docs', help='folder of the files')
    parser.add_argument('--cache', default='cache', help='folder of prepared corpora')
    parser.add_argument('--families', default='gpt2,bert,t5')
    arguments = parser.parse_args()
    import torch
    import transformers

    curves = {}
    for name in arguments.families.split(','):
        torch.manual_seed(0)
        curves[name] = train(name, arguments.steps, arguments.cache)
    print(
        '| model | parameters | peak rate | first loss | last loss | largest difference | at step '
        '| PyTorch against itself, moved |'
    )
    print('|---|---|---|---|---|---|---|---|')
    for name, curve in curves.items():
        ours, theirs = np.array(curve['ours']), np.array(curve['theirs'])
        worst = int(np.abs(ours - theirs).argmax())
        control = np.abs(np.array(curve['moved']) - theirs).max()
        print(
            f'| {name} | {curve["parameters"]:,} | {PEAKS[name]:g} | {ours[0]:.4f} | '
            f'{ours[-1]:.4f} | {np.abs(ours - theirs)[worst]:.1e} | {worst + 1} | {control:.1e} |'
        )
    facts = {
        'date': datetime.date.today().isoformat(),
        'hardware': f'{jax.device_count()} x {jax.devices()[0].device_kind} {processor()}',
        'jax': jax.__version__,
        'torch': torch.__version__,
        'transformers': transformers.__version__,
        'curves': curves,
    }
    out = Path(arguments.out)
    (out / 'training-parity.json').write_text(json.dumps(facts) + '\n')
    draw(curves, out / 'training-parity.png')
    sys.exit(any(np.abs(np.subtract(c['ours'], c['theirs'])).max() > TOLERANCE
                 for c in curves.values()))  # fmt: skip


def peer_model(name, rows):
    """A transformers model without dropout, for a table of `rows`."""
    import transformers

    if name == 'gpt2':
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(
            vocab_size=rows, n_embd=128, n_layer=4, n_head=4, n_positions=LENGTH + 1,
            resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, bos_token_id=1, eos_token_id=1,
        ))  # fmt: skip
    if name == 'bert':
        return transformers.BertForPreTraining(transformers.BertConfig(
            vocab_size=rows, hidden_size=128, num_hidden_layers=4, num_attention_heads=4,
            intermediate_size=512, max_position_embeddings=LENGTH, hidden_dropout_prob=0.0,
            attention_probs_dropout_prob=0.0,
        ))  # fmt: skip
    return transformers.T5ForConditionalGeneration(transformers.T5Config(
        vocab_size=rows, d_model=128, d_kv=32, d_ff=512, num_layers=3, num_heads=4,
        dropout_rate=0.0, decoder_start_token_id=0,
    ))  # fmt: skip


def settings(name, model, steps, cache, length=LENGTH):
    """The config that pretrain.convert makes of the model, for this comparison."""
    config = recipe.make(model.raw, model.config, '', '', length)
    config.init_from = config.data.tokenizer = ''
    config.data.update(cache=cache, vocabulary_size=PIECES)
    config.steps, config.batch_size = steps, ROWS
    config.optimizer.update(
        learning_rate=PEAKS[name], epsilon=EPSILON, clip=CLIP, weight_decay=DECAY, b1=0.9, b2=0.999
    )
    config.optimizer.schedule.update(name='linear', warmup=float(WARMUP), final=0.0)
    if 'z_loss' in config.objective:
        config.objective.z_loss = 0.0  # transformers has none
    return config


def train(name, steps, cache):
    """{'ours': losses, 'theirs': losses, ...} of the same steps."""
    import torch

    rows = -(-(PIECES + 100) // 128) * 128
    peer = peer_model(name, rows)
    with tempfile.TemporaryDirectory() as folder:
        peer.save_pretrained(folder)
        model = read_model(folder)
    config = settings(name, model, steps, cache)
    corpus = corpora.open_corpus(config.data)
    learner = assembly.make_learner(config, corpus.tokenizer.vocabulary)
    params = {'model': jax.tree.map(jnp.asarray, model.params)}
    state = {'params': params, 'optimizer': learner.optimizer.init(params), 'step': jnp.int32(0)}
    update = jax.jit(functools.partial(train_step.train_step, learner), donate_argnums=0)
    corrupt = jax.jit(
        functools.partial(
            learner.objective.corrupt, train_step.run_key(config.seed, train_step.CORRUPT)
        )
    )
    moved = copy.deepcopy(peer)
    with torch.no_grad():
        for parameter in moved.parameters():
            parameter *= 1 + 1e-7 * torch.randn(parameter.shape)
    step, control = (torch_step(name, model, steps) for model in (peer, moved))
    reader = corpora.open_windows(config, corpus, 'train', learner.objective)
    windows = loader.Loader(reader, config.seed, ROWS, slice(0, ROWS), 0)
    curve = {'ours': [], 'theirs': [], 'moved': []}
    curve['parameters'] = sum(x.size for x in jax.tree.leaves(params))
    for _ in tqdm(range(steps), desc=name, unit='step'):
        given = next(windows)
        batch = jax.tree.map(np.asarray, corrupt(given))
        state, measured = update(state, given)
        curve['ours'].append(float(measured['loss']))
        curve['theirs'].append(step(batch))
        curve['moved'].append(control(batch))
    windows.close()
    return curve


def torch_step(name, peer, steps):
    """A function of a batch that updates the peer once and returns the loss before."""
    import torch

    groups = [  # matrices and tables decay, biases and the gains of norms do not
        {'params': [p for p in peer.parameters() if p.ndim > 1], 'weight_decay': DECAY},
        {'params': [p for p in peer.parameters() if p.ndim == 1], 'weight_decay': 0.0},
    ]
    adamw = torch.optim.AdamW(groups, lr=PEAKS[name], betas=(0.9, 0.999), eps=EPSILON)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        adamw, lambda t: min(t / WARMUP, (steps - t) / (steps - WARMUP))
    )
    peer.train()  # there is no dropout that it could switch on

    def step(batch):
        adamw.zero_grad()
        loss = their_loss(name, peer, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(peer.parameters(), CLIP)
        adamw.step()
        schedule.step()
        return loss.item()

    return step


def their_loss(name, peer, batch):
    """transformers' own loss of a contract.Batch of numpy arrays; it leaves out labels of -100."""
    import torch

    tensor = functools.partial(torch.tensor, dtype=torch.long)
    targets = np.where(batch.weights_BxK > 0, batch.targets_BxK, -100)
    inputs = batch.inputs
    if name == 'gpt2':  # its labels are shifted inside, so a row is the inputs and one target more
        ids = np.concatenate([inputs.tokens_BxL[:, :1], batch.targets_BxK], axis=1)
        labels = np.concatenate([inputs.tokens_BxL[:, :1], targets], axis=1)
        return peer(input_ids=tensor(ids), labels=tensor(labels)).loss
    real = tensor(inputs.segments_BxL != 0)
    if name == 't5':
        return peer(
            input_ids=tensor(inputs.tokens_BxL), attention_mask=real, labels=tensor(targets)
        ).loss
    labels = np.full(inputs.tokens_BxL.shape, -100)
    for row, places, wanted in zip(labels, batch.places_BxK, targets):
        row[places[wanted >= 0]] = wanted[wanted >= 0]
    return peer(
        input_ids=tensor(inputs.tokens_BxL), attention_mask=real,
        token_type_ids=tensor(inputs.types_BxL), labels=tensor(labels),
        next_sentence_label=tensor(np.where(batch.labels_B >= 0, batch.labels_B, -100)),
    ).loss  # fmt: skip


def draw(curves, path):
    """Both losses of each model above, their difference below."""
    import matplotlib

    matplotlib.use('agg')
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(
        2, len(curves), figsize=(4 * len(curves), 5), sharex=True, squeeze=False,
        layout='constrained', height_ratios=(2, 1),
    )  # fmt: skip
    for (above, below), (name, curve) in zip(axes.T, curves.items()):
        ours, theirs = np.array(curve['ours']), np.array(curve['theirs'])
        steps = np.arange(1, len(ours) + 1)
        above.plot(steps, theirs, color='tab:orange', linewidth=4, alpha=0.5, label='PyTorch')
        above.plot(steps, ours, color='tab:blue', linewidth=1, label='ours')
        above.set(title=name, ylabel='loss (nats)')
        for name, color in (('moved', 'tab:orange'), ('ours', 'black')):
            difference = np.abs(np.array(curve[name]) - theirs)
            label = 'ours' if name == 'ours' else 'PyTorch, weights moved by 1e-7'
            below.semilogy(steps, np.maximum(difference, 1e-8), color=color, label=label)
        below.axhline(TOLERANCE, color='tab:red', linestyle='--', label='1e-3')
        below.set(xlabel='step', ylabel='difference to PyTorch')
        for axis in (above, below):
            axis.grid(alpha=0.3)
            axis.legend()
    figure.savefig(path, dpi=100)
    plt.close(figure)


if __name__ == '__main__':
    main()
