"""Peak memory of preparing a large source, and of training on a small and a large corpus.

    python -m benchmarks.data_memory --workdir=runs/data-memory --megabytes=2000 --base=25

The text is made of paragraphs of the Wikipedia excerpt, drawn by a seed, as JSON lines: half of it
plain, half packed, each in one file, with a line of 15 MB in either. Measured is the high-water
mark of resident memory (VmHWM) of the parent and of every worker, read from /proc while they run.
Training is `configs/gpt.py:smoke` for --steps steps on a corpus of --base megabytes and on one of
20 times as much; there RssAnon is shown as well, which leaves out the pages of mapped files, that
the kernel takes back when it needs them.
"""

import gzip
import json
import random
import subprocess
import sys
import time
from pathlib import Path

from absl import app, flags

from pretrain.data.bad_input import Tally
from pretrain.data.documents import open_source

WORKDIR = flags.DEFINE_string('workdir', None, 'Folder for what is made.', required=True)
MEGABYTES = flags.DEFINE_integer('megabytes', 2000, 'Of text that is prepared.')
BASE = flags.DEFINE_integer('base', 25, 'Megabytes of the small corpus that is trained on.')
STEPS = flags.DEFINE_integer('steps', 300, 'Of training.')
LONG = 15_000_000  # bytes of the longest line


def main(_):
    """Makes the texts, runs the commands, prints what they needed."""
    work = Path(WORKDIR.value)
    paragraphs = excerpt()
    make(work / 'large', MEGABYTES.value, paragraphs)
    begun = time.perf_counter()
    peaks, _ = watch(command('prepare', work / 'large', work / 'cache'))
    seconds = time.perf_counter() - begun
    parent, *workers = peaks
    print(f'{MEGABYTES.value} MB prepared in {seconds:.0f} s; peak of the parent {parent:.0f} MB,')
    print(f'of its workers {", ".join(f"{peak:.0f}" for peak in workers)} MB')
    for name, megabytes in (('1x', BASE.value), ('20x', 20 * BASE.value)):
        make(work / name, megabytes, paragraphs)
        watch(command('prepare', work / name, work / 'cache'))
        train = command('train', work / name, work / 'cache')
        train += [f'--workdir={work / "run"}-{name}', f'--config.steps={STEPS.value}']
        [peak], [anonymous] = watch([*train, '--config.sample.tokens=0'])
        print(f'training on {megabytes} MB: peak {peak:.0f} MB, of it anonymous {anonymous:.0f} MB')


def excerpt():
    """Paragraphs of the Wikipedia excerpt."""
    source = open_source('wikipedia:excerpt')
    return [
        paragraph
        for unit in source.units(1000)
        for raw in source.documents(unit, Tally())
        for paragraph in source.clean(raw).split('\n\n')
        if paragraph
    ]


def make(folder, megabytes, paragraphs):
    """Writes the text, where it is not there."""
    if folder.exists():
        return
    rng, unfinished = random.Random(0), folder.with_name(folder.name + '-unfinished')
    unfinished.mkdir(parents=True, exist_ok=True)
    for name, open_ in (('a.jsonl', open), ('b.jsonl.gz', gzip.open)):
        options = {'compresslevel': 1} if open_ is gzip.open else {}
        left = megabytes * 500_000
        with open_(unfinished / name, 'wt', encoding='utf-8', **options) as file:
            wanted = LONG if left > 10 * LONG else 0
            while left > 0:
                chosen = rng.choices(paragraphs, k=rng.randrange(1, 20))
                while wanted and sum(map(len, chosen)) < wanted:
                    chosen += rng.choices(paragraphs, k=1000)
                text = '\n\n'.join(chosen)[: wanted or None]
                left -= len(text)
                wanted = 0
                file.write(json.dumps({'text': text}, ensure_ascii=False) + '\n')
    unfinished.rename(folder)


def command(name, source, cache):
    """A command on a source."""
    return [
        sys.executable, '-m', f'pretrain.{name}', '--config=configs/gpt.py:smoke',
        f'--config.data.source=jsonl:{source}', f'--config.data.cache={cache}',
        '--config.data.shard_megabytes=64',
    ]  # fmt: skip


def watch(arguments):
    """Runs a command; returns megabytes (peaks, anonymous), of it first, then of its workers."""
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    found = {}
    while process.poll() is None:
        for path in Path('/proc').glob('[0-9]*/status'):
            try:
                facts = dict(line.split(':\t', 1) for line in path.read_text().splitlines())
                if process.pid not in (int(facts['Pid']), int(facts['PPid'])):
                    continue
                pair = [int(facts[key].split()[0]) / 1000 for key in ('VmHWM', 'RssAnon')]
            except (OSError, KeyError, ValueError):  # it has ended, or is a zombie
                continue
            known = found.setdefault(int(path.parent.name), pair)
            found[int(path.parent.name)] = [max(*both) for both in zip(known, pair, strict=True)]
        time.sleep(0.1)
    if process.returncode:
        sys.exit(f'failed: {" ".join(arguments)}')
    first = found.pop(process.pid)
    rows = [first, *sorted(found.values(), reverse=True)]
    return [row[0] for row in rows], [row[1] for row in rows]


if __name__ == '__main__':
    app.run(main)
