"""Our training step beside PyTorch's, of the same size, on the same device, in the same call.

    python -m benchmarks.step_speed --out=build/step_speed.json
    python -m benchmarks.step_speed --layers=12 --width=768 --heads=12 --steps=40

A step is all of it: forward, backward, clip by the global norm, AdamW. The peer is transformers'
GPT2LMHeadModel with sdpa attention, torch.optim.AdamW (fused where torch has that) and the same
clip; it predicts the same positions of the same random tokens. Both keep parameters and optimizer
in float32; with --dtype=bfloat16 ours computes in bfloat16 and the peer under torch.autocast. On a
GPU float32 products may use TF32 in both. Without --torch_compile the peer runs eagerly.

The two take turns, a block of steps each (ours, peer, ours, peer ...), so that whatever else
happens to the machine happens to both. A block ends by waiting for the device. Read it so:

- step: seconds of a step, from the blocks: median (least to most). A wide range means that the
  machine was not quiet; the load average before and after is printed with it.
- CPU s: seconds of all cores that a step used, median. On a CPU, where this is far below the cores
  times the step, others had the cores, and threads that wait for each other lost more than their
  share: measure again, or on one core (`taskset -c 0 python -m ...`), where CPU s can be compared.
- speed against the peer: the peer's seconds over ours, each block against the one beside it; the
  median (least to most) of these. Above 1 ours is faster. This is the number to quote.
- first step: with compilation, which is nothing for an eager peer. No compilation cache is used.
- MFU: the matrix products that the model needs (pretrain/flops.py) over the device's peak.
- GiB: the most that was in use at once, on a GPU.

Defaults: on a CPU 6 layers of 384, 8,192 pieces, 8 rows of 256; on a GPU GPT-2 124M, 16 rows of
1024 in bfloat16. Where one of the two cannot run on the device, a line says so and the other is
measured alone.
"""

import argparse
import datetime
import functools
import importlib.metadata
import json
import os
import platform
import statistics
import sys
import time
from pathlib import Path
from typing import NamedTuple

# Both live in one GPU's memory, so neither may take it all at the start.
os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')

import jax
import jax.numpy as jnp
import numpy as np

from configs.gpt import gpt
from objectives import contract
from pretrain import assembly, flops, train_step
from pretrain.errors import UserError

CPU = {
    'layers': 6, 'width': 384, 'heads': 6, 'length': 256, 'batch': 8, 'vocabulary': 8192,
    'dtype': 'float32', 'steps': 16, 'block': 2,
}  # fmt: skip
GPU = {
    'layers': 12, 'width': 768, 'heads': 12, 'length': 1024, 'batch': 16, 'vocabulary': 50304,
    'dtype': 'bfloat16', 'steps': 120, 'block': 10,
}  # fmt: skip
BATCHES = 4  # different batches, taken in turn
B1, B2, EPSILON, DECAY, CLIP, RATE = 0.9, 0.95, 1e-8, 0.1, 1.0, 3e-4
VERSIONS = ('jax', 'jaxlib', 'flax', 'optax', 'torch', 'transformers')


class Side(NamedTuple):
    """One of the two.

    run(steps) -> loss of the last step, after the device has finished it.
    peak_memory() -> bytes, or None where the device does not tell.
    """

    run: object
    peak_memory: object


def parse(arguments):
    """The flags; sizes that are not given are None until the device is known."""
    parser = argparse.ArgumentParser(
        description=__doc__.split('\n')[0], epilog='More in the docstring of this file.'
    )
    parser.add_argument('--device', choices=('auto', 'cpu', 'gpu'), default='auto')
    for name in ('layers', 'width', 'heads', 'length', 'batch', 'vocabulary', 'steps', 'block'):
        parser.add_argument(f'--{name}', type=int, help=f'{CPU[name]}; on a GPU {GPU[name]}')
    parser.add_argument('--dtype', choices=('float32', 'bfloat16'))
    parser.add_argument(
        '--remat', choices=('none', 'full', 'dots'), default='none',
        help="of ours; full turns on the peer's gradient checkpointing as well",
    )  # fmt: skip
    parser.add_argument('--torch_compile', action='store_true')
    parser.add_argument('--out', help='JSON file of the results')
    flags = parser.parse_args(arguments)
    for name in ('layers', 'width', 'heads', 'length', 'batch', 'vocabulary', 'steps', 'block'):
        value = getattr(flags, name)
        if value is not None and value < 1:
            parser.error(f'--{name}={value} must be at least 1')
    return flags


def find_devices(flags):
    """Chooses the device; returns (device, what keeps ours from it, what keeps the peer from it).

    The two last are sentences, or None.
    """
    try:
        import torch
        import transformers  # noqa: F401

        torch_gpu, no_peer = torch.cuda.is_available(), None
    except (ImportError, OSError) as error:  # OSError: a library of the GPU's is missing
        torch_gpu, no_peer = False, f'torch and transformers are not to be had ({error})'
    if flags.device == 'cpu':
        jax.config.update('jax_platforms', 'cpu')
    jax_gpu = jax.default_backend() == 'gpu'
    if flags.device == 'cpu' or (flags.device == 'auto' and not jax_gpu and not torch_gpu):
        return 'cpu', None, no_peer
    if not torch_gpu and not no_peer:
        no_peer = 'torch sees no GPU'
    return 'gpu', None if jax_gpu else 'jax sees no GPU', no_peer


def our_learner(flags):
    """train_step.Learner of a GPT of this size, as a recipe makes it."""
    config = gpt(flags.layers, flags.width, flags.heads, flags.length)
    config.batch_size = flags.batch
    config.model.update(dtype=flags.dtype, remat=flags.remat)
    config.optimizer.update(
        learning_rate=RATE, b1=B1, b2=B2, epsilon=EPSILON, weight_decay=DECAY, clip=CLIP
    )
    config.optimizer.schedule.name = 'constant'
    size = flags.vocabulary
    vocabulary = contract.Vocabulary(
        size=size, table_size=size, pad=0, eos=1, unk=None, cls=None, sep=None, mask=None,
        modes=None, sentinels=None, word_start_V=np.ones(size, bool),
        bytes_V=np.ones(size, np.int32),
    )  # fmt: skip
    return assembly.make_learner(config, vocabulary)


def make_ours(flags, learner, tokens_NxBxW):
    """Our Side."""
    zeros_BxW, numbers_B = jnp.zeros(tokens_NxBxW[0].shape, jnp.int32), jnp.arange(flags.batch)
    batches = [
        contract.Windows(jnp.asarray(tokens_BxW), zeros_BxW, zeros_BxW, numbers_B)
        for tokens_BxW in tokens_NxBxW
    ]
    state = jax.jit(lambda: train_step.init_state(learner))()
    step = jax.jit(functools.partial(train_step.train_step, learner), donate_argnums=0)
    done = 0

    def run(steps):
        nonlocal state, done
        for _ in range(steps):
            state, measured = step(state, batches[done % BATCHES])
            done += 1
        jax.block_until_ready(state)
        return float(measured['loss'])

    def peak_memory():
        return (jax.devices()[0].memory_stats() or {}).get('peak_bytes_in_use')

    return Side(run, peak_memory)


def make_peer(flags, device, tokens_NxBxW):
    """PyTorch's Side."""
    import torch
    import transformers

    transformers.logging.set_verbosity_error()
    torch.manual_seed(0)
    place = 'cuda' if device == 'gpu' else 'cpu'
    model = transformers.GPT2LMHeadModel(transformers.GPT2Config(
        vocab_size=flags.vocabulary, n_positions=flags.length, n_embd=flags.width,
        n_layer=flags.layers, n_head=flags.heads, resid_pdrop=0.0, embd_pdrop=0.0,
        attn_pdrop=0.0, use_cache=False, bos_token_id=1, eos_token_id=1,
        attn_implementation='sdpa',
    )).to(place).train()  # fmt: skip
    if flags.remat == 'full':
        model.gradient_checkpointing_enable()
    parameters = list(model.parameters())
    groups = [
        {'params': [p for p in parameters if p.ndim > 1], 'weight_decay': DECAY},
        {'params': [p for p in parameters if p.ndim == 1], 'weight_decay': 0.0},
    ]
    settings = {'lr': RATE, 'betas': (B1, B2), 'eps': EPSILON}
    try:
        adamw = torch.optim.AdamW(groups, fused=True, **settings)
    except RuntimeError:  # no fused kernel for this device in this torch
        adamw = torch.optim.AdamW(groups, **settings)
    batches = torch.tensor(tokens_NxBxW, dtype=torch.long, device=place)
    half = flags.dtype == 'bfloat16'

    def forward(tokens_BxW):
        with torch.autocast(place, torch.bfloat16, enabled=half):
            logits_BxLxV = model(input_ids=tokens_BxW[:, :-1]).logits
        return torch.nn.functional.cross_entropy(
            logits_BxLxV.float().flatten(0, 1), tokens_BxW[:, 1:].flatten()
        )

    if flags.torch_compile:
        forward = torch.compile(forward)
    done = 0

    def run(steps):
        nonlocal done
        for _ in range(steps):
            adamw.zero_grad(set_to_none=True)
            loss = forward(batches[done % BATCHES])
            loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP)
            adamw.step()
            done += 1
        if place == 'cuda':
            torch.cuda.synchronize()
        return loss.item()

    def peak_memory():
        return torch.cuda.max_memory_allocated() if place == 'cuda' else None

    return Side(run, peak_memory)


def timed(side, steps):
    """(seconds a step, seconds of all cores a step, the last loss)."""
    began, used = time.perf_counter(), time.process_time()
    loss = side.run(steps)
    return (time.perf_counter() - began) / steps, (time.process_time() - used) / steps, loss


def measure(sides, flags):
    """Runs the sides in turn: {name: {'first_step', 'steps' (a number a block), 'losses', ...}}."""
    rows = {}
    for name, side in sides.items():
        seconds, _, loss = timed(side, 1)
        rows[name] = {'first_step': seconds, 'losses': [loss], 'steps': [], 'cpu_steps': []}
        timed(side, flags.block)  # warm-up
    for _ in range(max(1, flags.steps // flags.block)):
        for name, side in sides.items():
            seconds, used, _ = timed(side, flags.block)
            rows[name]['steps'].append(seconds)
            rows[name]['cpu_steps'].append(used)
    for name, side in sides.items():
        rows[name]['losses'].append(timed(side, 1)[2])
        rows[name]['peak_memory'] = side.peak_memory()
    return rows


def summarize(rows, flags, model_flops, peak):
    """Adds what follows from the times; returns the pairwise speed against the peer, or None."""
    for row in rows.values():
        step = row['step'] = statistics.median(row['steps'])
        row['tokens_per_second'] = flags.batch * flags.length / step
        row['flops_per_second'] = model_flops / step
        row['mfu'] = model_flops / step / peak if peak else None
    if len(rows) < 2:
        return None
    return [peer / ours for ours, peer in zip(rows['ours']['steps'], rows['peer']['steps'])]


def span(values, digits=3):
    """'median (least to most)'."""
    least, most = (f'{x:.{digits}f}' for x in (min(values), max(values)))
    return f'{statistics.median(values):.{digits}f} ({least} to {most})'


def table(rows, speed):
    """The results as Markdown."""
    lines = [
        '| | first step, s | step, s (range) | CPU s | tokens/s | TFLOP/s | MFU | GiB | loss |',
        '|---|---|---|---|---|---|---|---|---|',
    ]
    for name, row in rows.items():
        mfu = f'{100 * row["mfu"]:.1f} %' if row['mfu'] else '-'
        memory = f'{row["peak_memory"] / 2**30:.1f}' if row['peak_memory'] else '-'
        losses = ' -> '.join(f'{x:.3f}' for x in row['losses'])
        lines.append(
            f'| {name} | {row["first_step"]:.1f} | {span(row["steps"], 4)} '
            f'| {statistics.median(row["cpu_steps"]):.3f} | {row["tokens_per_second"]:,.0f} '
            f'| {row["flops_per_second"] / 1e12:.3f} | {mfu} | {memory} | {losses} |'
        )
    if speed:
        word = 'faster' if statistics.median(speed) > 1 else 'slower'
        lines += ['', f'speed against the peer: {span(speed)}, {len(speed)} pairs: ours is {word}']
    return '\n'.join(lines)


def device_name(device):
    """What the device calls itself."""
    if device == 'gpu' and jax.default_backend() == 'gpu':
        return jax.devices()[0].device_kind
    if device == 'gpu':
        import torch

        return torch.cuda.get_device_name()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else os.cpu_count()
    name = platform.processor() or platform.machine()
    info = Path('/proc/cpuinfo')
    if info.exists():
        models = [x for x in info.read_text().splitlines() if x.startswith('model name')]
        name = models[0].split(':', 1)[1].strip() if models else name
    return f'{name}, {cores} core{"s" * (cores > 1)}'


def version(package):
    """Its version, or None where it is not installed."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def main(arguments):
    """Measures and prints."""
    flags = parse(arguments)
    device, no_ours, no_peer = find_devices(flags)
    for name, default in (GPU if device == 'gpu' else CPU).items():
        if getattr(flags, name) is None:
            setattr(flags, name, default)
    if flags.block > flags.steps:
        flags.block = flags.steps
    for what, reason in (('ours', no_ours), ('the peer', no_peer)):
        if reason:
            print(f'{what} is left out: {reason}')
    if no_ours and no_peer:
        raise UserError(f'nothing can be measured on --device={device}')
    if device == 'gpu' and flags.dtype == 'float32':
        jax.config.update('jax_default_matmul_precision', 'tensorfloat32')
        if not no_peer:
            import torch

            torch.set_float32_matmul_precision('high')

    learner = our_learner(flags)
    module = learner.transformers['model']
    shapes = jax.eval_shape(lambda: train_step.init_state(learner))
    parameters = sum(x.size for x in jax.tree.leaves(shapes['params']))
    shape = (BATCHES, flags.batch, flags.length + 1)
    tokens_NxBxW = np.random.default_rng(0).integers(0, flags.vocabulary, shape).astype(np.int32)
    sides = {}
    if not no_ours:
        sides['ours'] = make_ours(flags, learner, tokens_NxBxW)
    if not no_peer:
        sides['peer'] = make_peer(flags, device, tokens_NxBxW)

    load = [os.getloadavg()[0]]
    rows = measure(sides, flags)
    load.append(os.getloadavg()[0])
    length = flags.length
    # Backward takes twice the products of forward.
    model_flops = 3 * flops.forward_flops(module.config, flags.batch, length, length, length)
    peak = flops.peak(jax.devices()[0], flags.dtype) if device == 'gpu' and not no_ours else None
    speed = summarize(rows, flags, model_flops, peak)

    versions = {name: version(name) for name in VERSIONS}
    date = datetime.date.today().isoformat()
    name = device_name(device)
    print(f'{name}; {date}; load {load[0]:.1f} before, {load[1]:.1f} after')
    print(', '.join(f'{package} {number}' for package, number in versions.items() if number))
    print(
        f'{parameters / 1e6:.1f} M parameters: {flags.layers} layers of {flags.width}, '
        f'{flags.heads} heads, vocabulary {flags.vocabulary}; {flags.batch} rows of '
        f'{flags.length}; {flags.dtype}, remat {flags.remat}, peer '
        f'{"compiled" if flags.torch_compile else "eager"}; blocks of {flags.block}\n'
    )
    print(table(rows, speed))
    if flags.out:
        out = Path(flags.out)
        out.parent.mkdir(parents=True, exist_ok=True)
        report = {
            'device': name, 'date': date, 'load': load, 'versions': versions,
            'command': ['python', '-m', 'benchmarks.step_speed', *arguments],
            'xla_flags': os.environ.get('XLA_FLAGS', ''), 'flags': vars(flags),
            'parameters': parameters, 'model_flops': model_flops, 'rows': rows,
            'speed_against_peer': speed,
        }  # fmt: skip
        out.write_text(json.dumps(report, indent=1) + '\n')


if __name__ == '__main__':
    try:
        main(sys.argv[1:])
    except UserError as error:
        print(f'error: {error}', file=sys.stderr)
        sys.exit(2)
