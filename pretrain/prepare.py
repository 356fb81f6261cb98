"""Makes the corpus that a config trains on: tokenizer, shards, held-out split.

    python -m pretrain.prepare --config=configs/gpt.py:tiny

Killed at any moment, it goes on where it stopped; pretrain.train calls it by itself.
"""

from absl import flags

from pretrain import assembly, commandline
from pretrain.data.corpus import Corpus
from pretrain.data.preparation import prepare
from pretrain.errors import UserError

CONFIG = commandline.define_config()
OUT = flags.DEFINE_string('out', None, 'Folder of corpora; default: data.cache of the config.')
PROCESSES = flags.DEFINE_integer('processes', 0, 'That tokenise; 0: one a core.')


def main(argv):
    """Prepares, and prints what there is."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if CONFIG.value is None:
        raise UserError('--config is missing: for example --config=configs/gpt.py:tiny')
    if PROCESSES.value < 0:
        raise UserError(f'--processes={PROCESSES.value} must be at least 0')
    data = CONFIG.value.data
    folder = prepare(assembly.corpus_recipe(data), OUT.value or data.cache, PROCESSES.value)
    corpus = Corpus(folder)
    print(f'{folder}: {len(corpus.manifest["shards"])} shards')
    names = ('documents', 'sentences', 'tokens', 'bytes')
    print(f'{"":10}', *(f'{name:>15}' for name in names), f'{"bytes/token":>12}')
    for split in ('train', 'validation'):
        totals = [corpus.total(split, name) for name in names]
        ratio = totals[3] / totals[2] if totals[2] else 0
        print(f'{split:10}', *(f'{n:>15,}' for n in totals), f'{ratio:>12.2f}')
    for loss in corpus.manifest['losses']:
        print(f'warning: {loss}')


if __name__ == '__main__':
    commandline.run(main)
