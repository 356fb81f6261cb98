"""A text to train on, the commands as their users call them, tiny runs that tasks start from."""

import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from objectives import contract

# Forks before any device is touched, so that a dozen calls import jax once.
FORKED = """
import json, os, sys
import pretrain.{command} as module
from pretrain import commandline
for i, argv in enumerate(json.loads(sys.stdin.read())):
    if os.fork() == 0:
        for stream, name in ((1, 'out'), (2, 'err')):
            os.dup2(os.open(f'{{sys.argv[1]}}/{{i}}.{{name}}', os.O_WRONLY | os.O_CREAT), stream)
        sys.argv = ['pretrain.{command}', *argv]
        commandline.run(module.main, {run_flag!r}, getattr(module, 'default_config', None))
    status = os.waitstatus_to_exitcode(os.wait()[1])
    open(f'{{sys.argv[1]}}/{{i}}.code', 'w').write(str(status))
"""


@pytest.fixture(scope='session')
def text_folder(tmp_path_factory):
    """Twenty files of made-up sentences."""
    folder = tmp_path_factory.mktemp('text')
    rng = random.Random(0)
    syllables = ['ka', 'lo', 'mi', 'ter', 'on', 'sa', 've', 'ru', 'den', 'pi']
    words = [''.join(rng.choices(syllables, k=rng.randrange(1, 4))) for _ in range(150)]
    for i in range(20):
        sentences = [' '.join(rng.choices(words, k=8)).capitalize() + '.' for _ in range(40)]
        (folder / f'{i}.txt').write_text(' '.join(sentences))
    return folder


@pytest.fixture(scope='session')
def small(text_folder, tmp_path_factory):
    """Flags of a run on that text: seconds long, and the corpus shared by all."""
    return [
        '--config=configs/gpt.py:smoke',
        f'--config.data.source=text:{text_folder}',
        f'--config.data.cache={tmp_path_factory.mktemp("cache")}',
        '--config.data.vocabulary_size=400',
        '--config.data.validation_fraction=0.2',
        '--config.eval.windows=0',
    ]


@pytest.fixture(scope='session')
def vocabulary():
    """A tokenizer of 96 ids with all that an objective may ask for: 9 special, 67 pieces, 20
    sentinels."""
    bytes_V = np.where(np.arange(96) < 9, 0, 3)
    bytes_V[-20:] = 0
    return contract.Vocabulary(
        size=96, table_size=96, pad=0, eos=1, unk=2, cls=3, sep=4, mask=5,
        modes={'R': 6, 'X': 7, 'S': 8}, sentinels=tuple(range(95, 75, -1)),
        word_start_V=np.arange(96) % 3 == 0, bytes_V=bytes_V.astype(np.int32),
    )  # fmt: skip


@pytest.fixture(scope='session')
def start(environment, request):
    """start('train', *flags) -> Popen."""

    def start(command, *flags, **changes):
        return subprocess.Popen(
            [sys.executable, '-m', f'pretrain.{command}', *map(str, flags)],
            env=environment | changes, cwd=request.config.rootpath, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    return start


@pytest.fixture(scope='session')
def call(start):
    """call('train', *flags) -> CompletedProcess."""

    def call(command, *flags, **changes):
        process = start(command, *flags, **changes)
        out, err = process.communicate(timeout=300)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    return call


@pytest.fixture
def call_many(environment, request, tmp_path):
    """call_many('train', [flags, flags, ...]) -> [(exit code, stdout, stderr), ...]."""

    def call_many(command, calls, run_flag=None):
        folder = Path(tempfile.mkdtemp(prefix='calls', dir=tmp_path))
        script = FORKED.format(command=command, run_flag=run_flag)
        subprocess.run(
            [sys.executable, '-c', script, folder], input=json.dumps(calls), text=True, timeout=300,
            env=environment, cwd=request.config.rootpath, check=True,
        )  # fmt: skip
        read = lambda i, name: (folder / f'{i}.{name}').read_text()  # noqa: E731
        return [(int(read(i, 'code')), read(i, 'out'), read(i, 'err')) for i in range(len(calls))]

    return call_many


@pytest.fixture
def refused(call_many):
    """refused('train', [(flags, what is said), ...]): one line, exit code 2, no traceback."""

    def refused(command, cases, run_flag=None):
        results = call_many(command, [flags for flags, _ in cases], run_flag)
        for (flags, says), (code, _, err) in zip(cases, results, strict=True):
            said = [line for line in err.splitlines() if line.startswith('error: ')]
            assert code == 2, (flags, err)
            assert len(said) == 1, (flags, err)
            assert says in said[0], (flags, said)
            assert 'Traceback' not in err, (flags, err)

    return refused


@pytest.fixture(scope='session')
def trained(call, small, tmp_path_factory):
    """The folder of a short finished run, and what it printed."""
    workdir = tmp_path_factory.mktemp('runs') / 'trained'
    done = call('train', *small, f'--workdir={workdir}')
    assert done.returncode == 0, done.stderr
    return workdir, done.stdout


FILLERS = ('ba', 'ceno', 'dul', 'fimo', 'gar', 'hesu', 'jori', 'kep', 'nuva', 'pox', 'rith', 'sool')
SIGNS = ('blue', 'grey', 'pink', 'gold', 'mint', 'teal')  # words that decide


class Toy:
    """Separable tasks in the benchmarks' own formats: the number of one word is the answer."""

    signs = SIGNS

    @staticmethod
    def sentence(rng, sign=None, words=4):
        """Random words, and one of SIGNS somewhere among them."""
        made = rng.choices(FILLERS, k=words)
        if sign is not None:
            made[rng.randrange(words)] = SIGNS[sign]
        return ' '.join(made)

    @staticmethod
    def tsv(path, rows):
        """Writes rows, dicts of one set of keys, as GLUE's files have them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        lines = [rows[0], *(row.values() for row in rows)]
        path.write_text(''.join('\t'.join(map(str, cells)) + '\n' for cells in lines))

    @staticmethod
    def jsonl(path, rows):
        """Writes rows, dicts, as SuperGLUE's files have them."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(''.join(json.dumps(row) + '\n' for row in rows))

    @classmethod
    def glue(cls, folder, name, texts, labels, sizes, seed=0):
        """A task of GLUE; the test split is last and has no labels.

        texts: columns of the texts, the first of which decides. labels: as the files spell them.
        sizes: {file: rows}.
        """
        rng = random.Random(seed)
        for file, count in sizes.items():
            rows = []
            for i in range(count):
                sign = i % len(labels)
                row = {'index': i, texts[0]: cls.sentence(rng, sign)}
                row |= {text: cls.sentence(rng) for text in texts[1:]}
                rows.append(row if 'test' in file else row | {'label': labels[sign]})
            if name == 'MNLI' and 'test' not in file:
                rows = [{**row, 'gold_label': row['label']} for row in rows]
            cls.tsv(folder / name / f'{file}.tsv', rows)
        return folder


@pytest.fixture(scope='session')
def toy():
    """Writes small files of separable tasks."""
    return Toy


@pytest.fixture(scope='session')
def tiny_runs(tmp_path_factory):
    """{'encoder', 'decoder', 'both': folder of a run}, of parameters that are drawn at random."""
    import jax

    from configs import bert, gpt, t5
    from pretrain import assembly, train_step
    from pretrain.data import tokenizer
    from pretrain.huggingface import run

    rng = random.Random(0)
    words = [*FILLERS, *SIGNS, 'negative', 'positive', 'sentence']
    # Pairs of words: each is one piece, with a space before it and without, so that all sentences
    # of a length make rows of one length.
    pairs = [' '.join(rng.choices(words, k=2)) for _ in range(3000)]
    tokens = tokenizer.train(['\n'.join(pairs)], 331)
    folder = tmp_path_factory.mktemp('tiny_runs')
    for name, module in (('encoder', bert), ('decoder', gpt), ('both', t5)):
        config = module.get_config('smoke')
        config.seed = 7
        learner = assembly.make_learner(config, tokens.vocabulary)
        params = jax.device_get(jax.jit(lambda ready=learner: train_step.draw_params(ready))())
        (folder / name).mkdir()
        run.write(folder / name, config, tokens, params)
    return {name: folder / name for name in ('encoder', 'decoder', 'both')}
