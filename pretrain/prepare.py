"""Makes the corpus that a config trains on: tokenizer, shards, held-out split.

    python -m pretrain.prepare --config=configs/gpt.py:tiny

Killed at any moment, it goes on where it stopped; pretrain.train calls it by itself. On many
machines that share a disk each makes a part, and the last to end puts them together:

    python -m pretrain.prepare --config=configs/gpt.py:gpt2_124m --shard=0/8 (and 1/8, 2/8, ...)
"""

import re

from absl import flags

from pretrain import assembly, commandline, corpora, phases
from pretrain.data import shards
from pretrain.data.corpus import Corpus
from pretrain.data.corpus_summary import draw, table
from pretrain.data.preparation import Work, prepare_all
from pretrain.errors import UserError

CONFIG = commandline.define_config()
OUT = flags.DEFINE_string('out', None, 'Folder of corpora; default: data.cache of the config.')
PROCESSES = flags.DEFINE_integer('processes', 0, 'That tokenise; 0: one a core.')
DATA_DIR = flags.DEFINE_string('data_dir', None, 'Of tfds: sources; default: data.data_dir.')
SHARD = flags.DEFINE_string('shard', '0/1', 'i/n: make only each n-th unit, from the i-th on.')
ON_BAD_INPUT = flags.DEFINE_string(
    'on_bad_input', 'stop', 'stop: at what cannot be read; skip: leave it out, and count it.'
)


def main(argv):
    """Prepares, and prints what there is."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if CONFIG.value is None:
        raise UserError('--config is missing: for example --config=configs/gpt.py:tiny')
    if PROCESSES.value < 0:
        raise UserError(f'--processes={PROCESSES.value} must be at least 0')
    if ON_BAD_INPUT.value not in ('stop', 'skip'):
        raise UserError(f'--on_bad_input={ON_BAD_INPUT.value} is neither stop nor skip')
    share = re.fullmatch(r'(\d+)/(\d+)', SHARD.value)
    if not share or not int(share[1]) < int(share[2]):
        raise UserError(
            f'--shard={SHARD.value} is not i/n with i from 0 to n - 1: for example --shard=0/8'
        )
    share = int(share[1]), int(share[2])
    work = Work(PROCESSES.value, share, ON_BAD_INPUT.value == 'skip')
    data = CONFIG.value.data
    if DATA_DIR.value is not None:
        data.data_dir = DATA_DIR.value
    folders = prepare_all(corpora.corpus_recipes(data), OUT.value or data.cache, work)
    for folder in folders:
        if not (folder / 'manifest.json').exists():
            continue  # other shares are not made yet, as was said
        corpus = Corpus(folder)
        print(f'{folder}: {len(corpus.manifest["shards"])} shards')
        print(table(corpus.manifest))
        print(f'picture: {draw(corpus)}')
    if all((folder / 'manifest.json').exists() for folder in folders):
        lay_out(CONFIG.value, corpora.join_corpora(data, folders))


def lay_out(config, corpus):
    """Lays out the windows that a run of the config will read, where that takes a table.

    Args:
        config: of the run. corpus: Corpus or Mixture.
    """
    if len(corpus.corpora) > 1:
        for name, share in corpus.shares.items():
            print(f'{share:.2%} of the windows are of {name}')
    if config.data.cut == 'stream':
        return
    for phase in phases.plan(config):
        section = phases.objective_of(config, phase)
        objective = assembly.make_objective(config, corpus.tokenizer.vocabulary, section)
        for split in shards.SPLITS:
            for name, reader in corpora.open_each(config, corpus, split, objective).items():
                print(
                    f'{name}, {split}: {len(reader):,} windows of {reader.length} tokens, '
                    f'{reader.padding:.2%} padding'
                )


if __name__ == '__main__':
    commandline.run(main)
