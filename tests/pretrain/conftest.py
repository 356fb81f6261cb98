"""A vocabulary, a finished run, tiny runs that tasks start from."""

import json
import random

import numpy as np
import pytest

from objectives import contract


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
