"""Documents a second: pretrain.prepare beside datasets.map with a fast tokenizer.

    python -m benchmarks.data_speed --data_dir=WIKIPEDIA --workdir=runs/data-speed

Needs `pip install datasets` beside the extra `peers`. Both sides read the same .jsonl.gz files with
as many processes, tokenise with vocabularies of the same size trained on the same text,
and make windows of the same length: ours writes shards, whose windows are cut when they are read,
and finds sentences on its way; theirs is the usual recipe, map a tokenizer over batches, then map
the concatenation into blocks. Reading is part of it on both sides, training tokenizers on none. The
sides take turns; the median of the rounds counts.

It also times the loading of windows beside a step of a base-size model: what it takes a process to
read the windows of a step, as a share of the time that --step_seconds says such a step takes.
"""

import json
import shutil
import statistics
import time
from pathlib import Path

import numpy as np
from absl import app, flags

from pretrain.data import tokenizer
from pretrain.data.bad_input import Tally
from pretrain.data.corpus import Corpus
from pretrain.data.documents import open_source
from pretrain.data.loader import Loader
from pretrain.data.preparation import Recipe, Work, prepare
from pretrain.data.windows import WindowReader

DATA_DIR = flags.DEFINE_string('data_dir', None, 'Folder of .jsonl.gz files.', required=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder for what is made.', required=True)
PROCESSES = flags.DEFINE_integer('processes', 2, 'Of each side.')
ROUNDS = flags.DEFINE_integer('rounds', 3, 'Of each side.')
PIECES = flags.DEFINE_integer('pieces', 8192, 'Of each vocabulary.')
LENGTH = flags.DEFINE_integer('length', 512, 'Of a window.')
BATCH = flags.DEFINE_integer('batch', 32, 'Windows a step, for the loading.')
STEPS = flags.DEFINE_integer('steps', 200, 'Whose windows are loaded.')
STEP_SECONDS = flags.DEFINE_float('step_seconds', 0.0, 'Of a base-size step; 0: not compared.')


def main(_):
    """Runs the rounds and prints the table."""
    folder, work = Path(DATA_DIR.value), Path(WORKDIR.value)
    if not sorted(folder.glob('*.jsonl.gz')):
        print(f'{folder} holds no .jsonl.gz: skipped')
        return
    work.mkdir(parents=True, exist_ok=True)
    source = open_source(f'jsonl:{folder}')
    texts = []
    for text in source.documents(source.units(1e6)[0], Tally()):
        texts.append(text)
        if sum(map(len, texts[-50:])) and sum(map(len, texts)) > 10e6:
            break
    ours, theirs = train_ours(texts, work), train_theirs(texts)
    times = {'ours': [], 'theirs': []}
    documents = None
    for _ in range(ROUNDS.value):
        corpus, seconds = run_ours(folder, ours, work)
        times['ours'].append(seconds)
        documents = corpus.total('all', 'documents')
        count, seconds = run_theirs(folder, theirs, work)
        times['theirs'].append(seconds)
        assert count == documents, (count, documents)
    middle = {side: statistics.median(seconds) for side, seconds in times.items()}
    print(f'{documents:,} documents, {corpus.total("all", "bytes") / 1e6:.0f} MB of text')
    for side, seconds in times.items():
        every = ', '.join(f'{s:.1f}' for s in seconds)
        print(f'{side:>8}: {documents / middle[side]:,.0f} documents/s ({every} s)')
    print(f'   ratio: {middle["theirs"] / middle["ours"]:.2f}')
    loading = time_loading(corpus)
    print(f'loading: {1e3 * loading:.2f} ms for {BATCH.value} windows of {LENGTH.value}', end='')
    share = f', {loading / STEP_SECONDS.value:.2%} of a step' if STEP_SECONDS.value else ''
    print(share)
    facts = {'times': times, 'documents': documents, 'loading': loading}
    (work / 'data_speed.json').write_text(json.dumps(facts, indent=1))


def train_ours(texts, work):
    """Path of a SentencePiece model."""
    path = work / 'tokenizer.model'
    path.write_bytes(tokenizer.train(texts, PIECES.value).model)
    return path


def train_theirs(texts):
    """A byte-level BPE as transformers wraps it."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import PreTrainedTokenizerFast

    library = ByteLevelBPETokenizer()
    library.train_from_iterator(texts, PIECES.value, special_tokens=['<|endoftext|>'])
    return PreTrainedTokenizerFast(tokenizer_object=library, eos_token='<|endoftext|>')


def run_ours(folder, model, work):
    """(Corpus, seconds) of a preparation from nothing."""
    cache = work / 'ours'
    shutil.rmtree(cache, ignore_errors=True)
    recipe = Recipe(
        source=f'jsonl:{folder}', text_field='text', tokenizer=str(model), vocabulary_size=0,
        tokenizer_megabytes=10.0, validation_fraction=0.005, shard_megabytes=16.0,
    )  # fmt: skip
    begun = time.perf_counter()
    made = prepare(recipe, cache, Work(PROCESSES.value))
    return Corpus(made), time.perf_counter() - begun


def run_theirs(folder, tokens, work):
    """(documents, seconds) of the usual recipe from nothing."""
    import datasets

    cache = work / 'theirs'
    shutil.rmtree(cache, ignore_errors=True)
    length = LENGTH.value
    begun = time.perf_counter()
    files = [str(path) for path in sorted(folder.glob('*.jsonl.gz'))]
    loaded = datasets.load_dataset('json', data_files=files, cache_dir=str(cache), split='train')

    def tokenise(rows):
        ids = tokens(rows['text'], return_attention_mask=False)['input_ids']
        return {'input_ids': [[*row, tokens.eos_token_id] for row in ids]}

    def group(rows):
        ids = [i for row in rows['input_ids'] for i in row]
        whole = len(ids) // length * length
        return {'input_ids': [ids[at : at + length] for at in range(0, whole, length)]}

    options = {'batched': True, 'num_proc': PROCESSES.value}
    mapped = loaded.map(tokenise, remove_columns=loaded.column_names, **options)
    mapped.map(group, **options)
    return len(loaded), time.perf_counter() - begun


def time_loading(corpus):
    """Seconds to read the windows of a step, in the caller's own thread; the median of steps."""
    reader = WindowReader(corpus, 'train', LENGTH.value)
    loader = Loader(reader, 0, BATCH.value, slice(0, BATCH.value), 0, workers=0)
    seconds = []
    for _ in range(STEPS.value):
        begun = time.perf_counter()
        next(loader)
        seconds.append(time.perf_counter() - begun)
    return float(np.median(seconds))


if __name__ == '__main__':
    app.run(main)
