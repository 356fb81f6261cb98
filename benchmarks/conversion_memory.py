"""How much memory a conversion takes: GPT-2 of 1.5B parameters, in and out.

    python -m benchmarks.conversion_memory --folder=DIR

Writes a GPT-2 of random weights in the Hugging Face layout (6.2 GB) below DIR, runs both directions
of pretrain.convert on it, compares every tensor that comes out with what went in, byte for byte,
and removes all of it. Prints the peak of each command's own memory, watched from outside 20 times a
second, and its time. (What the system shows as resident also counts pages of the mapped input file,
which it can drop at any time.)
"""

import argparse
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import tokenizers

from pretrain.huggingface import family, weights
from pretrain.huggingface.families import FAMILIES


def main():
    """Prints the table; exit code 1 where a tensor differs."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--folder', required=True, help='where 19 GB of disk are free')
    parser.add_argument('--layers', type=int, default=48)
    parser.add_argument('--width', type=int, default=1600)
    arguments = parser.parse_args()
    work = Path(arguments.folder) / 'conversion_memory'
    published, run, out = work / 'published', work / 'run', work / 'out'
    shutil.rmtree(work, ignore_errors=True)
    published.mkdir(parents=True)
    try:
        size = write_published(published, arguments.layers, arguments.width)
        into = watch('--from_huggingface', published, f'--workdir={run}')
        back = watch('--to_huggingface', out, f'--checkpoint={run}')
        print(f'weights: {size / 1e9:.2f} GB in float32')
        print('| direction | peak of its own memory | of it, times the weights | seconds |')
        print('|---|---|---|---|')
        for name, (peak, seconds) in (('in', into), ('out', back)):
            print(f'| {name} | {peak / 1e9:.2f} GB | {peak / size:.2f} | {seconds:.0f} |')
        before, after = weights.Weights(published), weights.Weights(out)
        same = before.names == after.names and all(
            np.array_equal(before.read(name), after.read(name)) for name in before.names
        )
        print('every tensor came back the same' if same else 'error: tensors differ')
        sys.exit(not same)
    finally:
        shutil.rmtree(work)


def write_published(folder, layers, width):
    """Writes config.json, random weights and a tokenizer; the bytes of the weights."""
    raw = {'model_type': 'gpt2', 'n_layer': layers, 'n_embd': width, 'n_head': width // 64}
    (folder / 'config.json').write_text(json.dumps(raw))
    gpt2 = FAMILIES['gpt2']
    wanted = family.tensors(gpt2, family.read_config(gpt2, raw, ()))
    rng = np.random.default_rng(0)
    arrays = {t.name: rng.standard_normal(t.shape, np.float32) for t in wanted}
    weights.write(folder / weights.SAFETENSORS, arrays)
    names = ['<|endoftext|>', *tokenizers.pre_tokenizers.ByteLevel.alphabet()]
    ids = {name: i for i, name in enumerate(names)}
    file = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    file.add_special_tokens(['<|endoftext|>'])
    file.save(str(folder / 'tokenizer.json'))
    return sum(array.nbytes for array in arrays.values())


def watch(direction, folder, other):
    """Runs the command; (peak bytes of memory that is its own, seconds)."""
    command = [sys.executable, '-m', 'pretrain.convert', f'{direction}={folder}', other]
    began, peak = time.time(), 0
    process = subprocess.Popen(command)
    while process.poll() is None:
        try:
            status = Path(f'/proc/{process.pid}/status').read_text()
        except OSError:
            break
        lines = (line.split() for line in status.splitlines())
        own = next((int(words[1]) for words in lines if words[0] == 'RssAnon:'), 0)
        peak = max(peak, 1024 * own)
        time.sleep(0.05)
    if process.wait():
        sys.exit(f'{" ".join(command)} failed')
    return peak, time.time() - began


if __name__ == '__main__':
    main()
