"""Shows what a config trains on, before it trains: documents, windows, frequencies of tokens.

    python -m pretrain.look --config=configs/bert.py:tiny

Prints it in colour, and writes it as a page of HTML beside the corpus.
"""

import os
import sys
from pathlib import Path

import numpy as np
from absl import flags

from pretrain import assembly, commandline, corpora, examples, phases
from pretrain.data import corpus_summary, shards
from pretrain.data.permutation import permute
from pretrain.errors import UserError
from pretrain.page import Block, page, terminal

CONFIG = commandline.define_config()
DOCUMENTS = flags.DEFINE_integer('documents', 3, 'How many documents are shown of each corpus.')
WINDOWS = flags.DEFINE_integer('windows', 3, 'How many windows are shown of each phase.')
HTML = flags.DEFINE_string('html', '', 'The page; default: look.html in the folder of the corpus.')
COLOUR = flags.DEFINE_string('colour', 'auto', 'always, never, or auto: on a terminal.')

SHOWN = 150  # tokens of a document
COMMON, RARE = 20, 20  # tokens in the table of frequencies


def main(argv):
    """Prepares the corpus where it is not there yet, and shows it."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    if CONFIG.value is None:
        raise UserError('--config is missing: for example --config=configs/gpt.py:tiny')
    for flag in (DOCUMENTS, WINDOWS):
        if flag.value < 0:
            raise UserError(f'--{flag.name}={flag.value} must be at least 0')
    if COLOUR.value not in ('always', 'never', 'auto'):
        raise UserError(f'--colour={COLOUR.value} is not one of always, never, auto')
    config = CONFIG.value
    plan = phases.plan(config)
    assembly.check_before_data(config, plan, config.data.tokenizer)
    corpus = corpora.open_corpus(config.data)
    blocks = [*of_documents(corpus, DOCUMENTS.value, config.seed)]
    blocks += of_windows(config, corpus, plan, WINDOWS.value)
    blocks += [of_frequencies(name, each) for name, each in corpus.corpora.items()]
    colour = sys.stdout.isatty() and 'NO_COLOR' not in os.environ
    print(terminal(blocks, {'always': True, 'never': False, 'auto': colour}[COLOUR.value]))
    folder = next(iter(corpus.corpora.values())).folder
    path = Path(HTML.value) if HTML.value else folder / 'look.html'
    try:
        with shards.write_whole(path) as file:
            file.write(page(f'{config.name}: {corpus.source}', blocks).encode())
    except OSError as error:
        raise UserError(f'--html: cannot write {str(path)!r}: {error.strerror}') from None
    print(f'\npage: {path}')


def of_documents(corpus, count, seed):
    """Each corpus in numbers, and some documents of it token by token.

    Args:
        corpus: Corpus or Mixture. count: documents. seed: which.
    """
    for name, each in corpus.corpora.items():
        share = corpus.shares[name]
        rate = f', {share:.2%} of the windows' if share < 1 else ''
        yield Block(f'{name}: {each.source}{rate}', corpus_summary.table(each.manifest))
        total = each.total('train', 'documents')
        lines = {}
        for number in permute(np.arange(min(count, total)), total, (seed,)).tolist():
            ids = each.document(number)
            lines[f'document {number} of the training split, {len(ids):,} tokens'] = [
                *_pieces(each.tokenizer, ids[:SHOWN]),
                *([(' ...', 'divider')] if len(ids) > SHOWN else []),
            ]
        yield Block(lines=lines)


def _pieces(tokens, ids):
    for place, i in enumerate(ids.tolist()):
        kind = 'special' if tokens.vocabulary.bytes_V[i] == 0 else ('even', 'odd')[place % 2]
        yield tokens.decode([i]), kind


def of_windows(config, corpus, plan, count):
    """The first windows of each phase of a run as its objective makes them.

    Args:
        config: of the run. corpus: Corpus or Mixture. plan: list of phases.Phase. count: windows.
    """
    blocks = []
    for phase in plan:
        section = phases.objective_of(config, phase)
        objective = assembly.make_objective(config, corpus.tokenizer.vocabulary, section)
        reader = corpora.open_windows(config, corpus, 'train', objective)
        blocks.append(
            Block(
                f'{section.name}, steps {phase.begin + 1} to {phase.end}: {len(reader):,} windows '
                f'of {reader.length} tokens, {reader.padding:.1%} padding'
            )
        )
        for row in examples.rows(objective, config.seed, reader, count):
            lines = {}
            for name, found in examples.spans(row, corpus.tokenizer).items():
                lines[name] = [piece for span in found for piece in _shown(span)]
            blocks.append(Block(lines=lines))
    return blocks


def _shown(span):
    """A span as pieces: what is read at a place, and behind it what is to be predicted there."""
    yield span.text, span.kind
    if span.kind == 'wanted':
        yield span.target + examples.shown(span.weight), 'becomes'
    elif span.weight != 1:
        yield examples.shown(span.weight), 'divider'


def of_frequencies(name, corpus):
    """The commonest and rarest tokens of a corpus's training text, and how many never come."""
    tokens = corpus.tokenizer
    size = tokens.vocabulary.size
    counts_V = corpus.counts_V[:size]
    total = max(1, int(counts_V.sum()))
    order = np.argsort(-counts_V, kind='stable')
    seen = int(np.count_nonzero(counts_V))
    is_text_V = tokens.vocabulary.bytes_V[:size] > 0
    lines = [
        f'{seen:,} of {size:,} ids occur; of the {int(is_text_V.sum()):,} that stand for text '
        f'{int(np.sum(is_text_V & (counts_V == 0))):,} do not',
        f'{"rank":>8} {"id":>8} {"times":>14} {"share":>8}  token',
    ]
    ranks = [*range(min(COMMON, seen)), *range(max(COMMON, seen - RARE), seen)]
    for rank in ranks:
        i = int(order[rank])
        text = tokens.decode([i]).replace('\n', '\\n')
        lines.append(
            f'{rank + 1:>8,} {i:>8} {counts_V[i]:>14,} {counts_V[i] / total:>8.3%}  {text!r}'
        )
    return Block(f'tokens of the training text of {name}', '\n'.join(lines))


if __name__ == '__main__':
    commandline.run(main)
