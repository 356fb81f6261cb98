"""What a run prints when it begins and when it ends."""

import json
import re
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from configs import gpt
from pretrain import assembly, meshes, summary
from pretrain.data import tokenizer
from pretrain.phases import Phase


def results(folder, rows):
    (folder / 'metrics.jsonl').write_text(''.join(json.dumps(row) + '\n' for row in rows))
    return summary.results(folder, 'runs/x/loss.png').splitlines()


def row(step, **fields):
    return {'step': step, 'loss': 9 - step / 100, 'seconds': step / 2.0, **fields}


def validated(step, loss):
    return row(
        step, validation_loss=loss, validation_perplexity=np.exp(loss), validation_unigram=8.0,
        validation_bits_per_byte=2.125, validation_accuracy=0.25,
    )  # fmt: skip


def cells(line):
    return re.split(r'\s{2,}', line.strip())


def test_with_validation(tmp_path):
    rows = [row(s, tokens_per_second=v) for s, v in ((10, 100.0), (20, 5000.0), (30, 6000.0))]
    rows.insert(2, validated(20, 6.5))
    rows.append(validated(35, 6.0) | {'loss': 5.75})
    blank, head, *table, baseline, last = results(tmp_path, rows)
    assert blank == ''
    assert cells(head) == [
        'step', 'training loss', 'validation loss', 'perplexity', 'bits a byte', 'accuracy',
    ]  # fmt: skip
    # Only rows with an evaluation, four digits of each number.
    assert [cells(line) for line in table] == [
        ['20', '8.8', '6.5', '665.1', '2.125', '0.25'],
        ['35', '5.75', '6', '403.4', '2.125', '0.25'],
    ]
    # Columns are aligned at the right.
    assert len({len(line) for line in [head, *table]}) == 1
    assert head.index('training loss') + len('training loss') == table[0].index('8.8') + 3
    # 6 is 25 % below 8.
    assert baseline == (
        'The same tokens cost 8.000 by their frequencies alone (unigram cross-entropy): '
        'that of the model is 6.000, 25.0% below.'
    )
    # The median speed: the first step, which compiled, does not spoil it.
    assert last == '18 s, 5,000 tokens/s; curve: runs/x/loss.png'


def test_without_validation(tmp_path):
    _, head, *table, last = results(tmp_path, [row(10), row(20)])
    assert cells(head) == ['step', 'training loss']
    assert [cells(line) for line in table] == [['10', '8.9'], ['20', '8.8']]
    assert last == '10 s; curve: runs/x/loss.png'


def test_one_row(tmp_path):
    lines = results(tmp_path, [validated(1, 8.5)])
    assert len(lines) == 5
    assert 'that of the model is 8.500, 6.2% above' in lines[3]


def test_a_long_run_shows_eight_rows_with_the_first_and_the_last(tmp_path):
    rows = [validated(1000 * i, 7.0) for i in range(1, 101)]
    _, _, *table, _, _ = results(tmp_path, rows)
    steps = [int(cells(line)[0]) for line in table]
    assert len(steps) == 8
    assert (steps[0], steps[-1]) == (1000, 100_000)
    gaps = np.diff(steps)
    assert gaps.min() >= 14_000
    assert gaps.max() <= 15_000


def test_steps_are_whole_numbers_however_large(tmp_path):
    _, _, *table, _, _ = results(tmp_path, [validated(299_999, 7.0), validated(300_000, 6.0)])
    assert [cells(line)[0] for line in table] == ['299999', '300000']


def test_no_rows_at_all(tmp_path):
    assert results(tmp_path, []) == ['', 'metrics.jsonl has no rows']


def test_a_field_that_a_row_lacks(tmp_path):
    first = validated(1, 8.5)
    del first['validation_accuracy']
    _, _, *table, _, _ = results(tmp_path, [first, validated(2, 8.0)])
    assert [cells(line)[-1] for line in table] == ['nan', '0.25']


@pytest.fixture
def facts():
    """The arguments of the banner, made up; shapes that two-way tensor parallelism can split."""
    totals = {'train': 12_345, 'validation': 678}
    corpus = SimpleNamespace(folder='cache/x-1', total=lambda split, name: totals[split])
    corpus.corpora, corpus.shares = {'x': corpus}, {'x': 1.0}
    shape = jax.ShapeDtypeStruct((8, 4), np.float32)
    table = {'model': {'token_embedding': {'table': shape}}}
    config = gpt.get_config('tiny')
    config.update(steps=600, batch_size=8)
    config.model.heads = 6  # as tiny's 3 do not
    return SimpleNamespace(
        config=config,
        corpus=corpus,
        totals=totals,
        plan=[Phase(0, 600, 8, None, 0)],
        abstract={'params': table, 'optimizer': shape},
    )


class Reader(list):
    """As much of a windows.WindowReader as the banner looks at."""

    length, padding = 129, 0.0


def banner(facts, mesh, frozen=None):
    vocabulary = tokenizer.stand_in(facts.config.data.vocabulary_size)
    stages = [
        SimpleNamespace(phase=phase, reader=Reader(range(9600)), learner=learner)
        for phase in facts.plan
        for learner in [assembly.make_learner(facts.config, vocabulary)]
    ]
    return summary.banner(
        facts.config, meshes.make_mesh(mesh), facts.corpus, stages, facts.abstract,
        frozen or {}, 'from scratch',
    ).splitlines()  # fmt: skip


def test_banner(facts):
    assert banner(facts, 'data=4,tensor=2') == [
        'tiny: 32 parameters, from scratch',  # and none of the optimizer's
        'corpus: cache/x-1, 12,345 tokens to train on, 678 held out',
        'objective: causal_lm, steps 1 to 600: 8 of 9,600 windows of 129 tokens a step, 0.5 epochs',
        'process 0 of 1: 8 of 8 devices (cpu), mesh data=4,fsdp=1,tensor=2,sequence=1, '
        'windows 1 to 8 of each 8',
    ]


def test_banner_of_a_mixture_and_of_padding(facts, monkeypatch):
    facts.corpus.corpora = {'x': facts.corpus, 'y': facts.corpus}
    facts.corpus.shares = {'x': 0.75, 'y': 0.25}
    monkeypatch.setattr(Reader, 'padding', 0.0123)
    lines = banner(facts, 'data=8')
    assert [line.rpartition(', ')[2] for line in lines[1:4]] == [
        '75.00% of the windows', '25.00% of the windows', '1.2% padding'
    ]  # fmt: skip


def test_banner_of_phases_and_of_a_frozen_model(facts):
    facts.plan.insert(0, Phase(0, 60, 16, 64, 0))
    facts.plan[1] = Phase(60, 600, 8, None, 960)
    lines = banner(facts, 'data=8', {'teacher': {'table': np.zeros((100, 20))}})
    assert lines[0] == 'tiny: 32 parameters, from scratch'  # those that are trained
    assert lines[1] == 'models: model 32, teacher 2,000 (not trained)'
    assert [line.split(': ')[1:3] for line in lines[3:5]] == [
        ['causal_lm, steps 1 to 60', '16 of 9,600 windows of 129 tokens a step, 0.1 epochs'],
        ['causal_lm, steps 61 to 600', '8 of 9,600 windows of 129 tokens a step, 0.5 epochs'],
    ]  # fmt: skip


def test_banner_warns(facts):
    facts.totals['validation'] = 0
    facts.abstract['params']['model']['token_embedding']['table'] = jax.ShapeDtypeStruct(
        (7, 4), np.float32
    )
    facts.config.objective.length = 30
    *_, held_out, table, length = banner(facts, 'tensor=2,sequence=4')
    assert held_out == 'warning: no document is held out: there will be no validation loss'
    assert table == (
        'left whole on every device: model/token_embedding/table: 7 does not divide by tensor=2'
    )
    assert length == (
        'left whole on every device: inputs of 30 tokens: 30 does not divide by sequence=4'
    )
