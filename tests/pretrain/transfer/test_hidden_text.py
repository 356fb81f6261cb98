"""A hidden text reaches no cast, all else stays, and what a task cannot be without is refused."""

import random

import pytest

from configs import own as own_config
from configs import squad
from configs import superglue as configs_of_superglue
from pretrain.errors import UserError
from pretrain.transfer import casts, glue, hidden_text, sources, superglue, text_to_text
from pretrain.transfer.experiment import Data, Experiment
from pretrain.transfer.task import Example, Span

RTE = glue.TASKS['rte']
PAIR = {'sentence1': 'ba', 'sentence2': 'kep'}


def test_one_text_is_empty_in_every_split_and_all_else_stays():
    train = [Example(i, dict(PAIR), RTE.labels[i % 2], group=7) for i in range(4)]
    splits = {'train': train, 'test': [e._replace(label=None) for e in train[:2]]}
    made, related = hidden_text.hide(RTE, splits, {}, 'sentence1')
    hidden = {'sentence1': '', 'sentence2': 'kep'}
    assert made == {
        'train': [Example(i, hidden, RTE.labels[i % 2], group=7) for i in range(4)],
        'test': [Example(i, hidden, None, group=7) for i in range(2)],
    }
    assert related == {}
    assert train[0].fields == PAIR
    said = text_to_text.inputs(RTE, made['train'][0])
    assert said == 'rte sentence1:  sentence2: kep'


def test_it_is_hidden_in_the_diagnostic_sets_too(toy, tmp_path):
    pair = {'premise': 'ba', 'hypothesis': 'kep'}
    for name in ('train', 'val'):
        rows = [{'idx': i, 'label': 'entailment', **pair} for i in range(2)]
        toy.jsonl(tmp_path / 'RTE' / f'{name}.jsonl', rows)
    toy.jsonl(tmp_path / 'AX-b' / 'AX-b.jsonl', [{'idx': 0, 'sentence1': 'a', 'sentence2': 'b'}])
    toy.jsonl(tmp_path / 'AX-g' / 'AX-g.jsonl', [{'idx': i, 'pair_id': 7, **pair} for i in (0, 1)])
    config = configs_of_superglue.get_config('rte')
    whole = sources.open_task(config, tmp_path)[1]
    config.transfer.hide = 'premise'
    task, data = sources.open_task(config, tmp_path)
    assert task == superglue.TASKS['rte']
    assert data.digest != whole.digest
    for name, text in (('axb', 'b'), ('axg', 'kep')):
        made = data.related[name][1]
        assert [e.fields for e in made] == [{'premise': '', 'hypothesis': text}] * len(made)
        assert [e.group for e in made] == [e.group for e in whole.related[name][1]]


@pytest.mark.parametrize('kind', ['encoder', 'decoder', 'both'])
def test_a_model_reads_nothing_of_it(kind, tiny, quick):
    made = []
    cast = casts.make_cast(tiny(kind), RTE, quick('rte').transfer)
    for first in ('ba', 'kep ba'):
        splits = {'train': [Example(0, PAIR | {'sentence1': first}, RTE.labels[0])]}
        hidden, _ = hidden_text.hide(RTE, splits, {}, 'sentence1')
        made.append(cast.rows(hidden['train'], True)[0].ids_L.tolist())
        assert made[-1] != cast.rows(splits['train'], True)[0].ids_L.tolist()
    assert made[0] == made[1]


def test_what_the_rest_tells_is_learnt_and_what_is_hidden_is_not(tiny, quick, toy, one_device):
    """The labels are in sentence2: without sentence1 all answers are right, without it few more
    than by chance."""
    rng = random.Random(5)
    rows = [
        Example(
            i,
            {
                'sentence1': toy.sentence(rng, rng.randrange(2)),
                'sentence2': toy.sentence(rng, i % 2),
            },
            RTE.labels[i % 2],
        )
        for i in range(72)
    ]
    scores = {}
    for field in RTE.texts:
        splits, _ = hidden_text.hide(RTE, {'train': rows[:48], 'dev': rows[48:]}, {}, field)
        config = quick('rte', transfer__hide=field)
        made = Experiment(tiny('encoder'), RTE, Data(splits, {}, ''), config, one_device, False)
        scores[field] = made.run(0).scores['dev']['accuracy']
    assert scores['sentence1'] == 1.0
    assert scores['sentence2'] < 0.8


def test_what_a_task_cannot_be_without_is_refused(toy, tmp_path):
    sst2, copa, wic, multirc = (
        {**glue.TASKS, **superglue.TASKS}[name] for name in ('sst2', 'copa', 'wic', 'multirc')
    )
    asked = Example(0, {'premise': 'ba', 'question': 'cause'}, 'choice1', choices=('ba', 'kep'))
    spans = tuple(Span(field, 0, 2) for field in PAIR)
    word = Example(0, {**PAIR, 'word': 'ba'}, 'True', spans=spans)
    read = Example(0, {'paragraph': 'ba', 'question': 'kep', 'answer': 'ba'}, 'True')
    for task, example, field, says in (
        (RTE, Example(0, PAIR, RTE.labels[0]), 'premise', 'without: sentence1 or sentence2'),
        (sst2, Example(0, {'sentence': 'ba'}, 'positive'), 'sentence', 'SST-2 has no text'),
        (wic, word, 'sentence1', 'WiC has no text'),
        (copa, asked, 'question', 'COPA can be without: premise'),
        (multirc, read, 'passage', 'without: paragraph or question or answer'),
    ):
        with pytest.raises(UserError, match=says):
            hidden_text.hide(task, {'train': [example]}, {}, field)
    for task, example, field in ((copa, asked, 'premise'), (multirc, read, 'paragraph')):
        made, _ = hidden_text.hide(task, {'train': [example]}, {}, field)
        assert made['train'][0].fields == example.fields | {field: ''}
    config = squad.get_config()
    config.transfer.hide = 'question'
    with pytest.raises(UserError, match=r"transfer\.hide='question': SQuAD needs both"):
        sources.open_task(config, tmp_path)


def test_a_text_of_ones_own_pair(toy, tmp_path):
    rows = [{**PAIR, 'label': label} for label in ('x', 'y')]
    for split in ('train', 'dev'):
        toy.tsv(tmp_path / f'{split}.tsv', rows)
    config = own_config.get_config()
    config.own.update(
        train='train.tsv', dev='dev.tsv', text_a='sentence1', text_b='sentence2', label='label',
        labels=('x', 'y'),
    )  # fmt: skip
    config.transfer.hide = 'sentence1'
    data = sources.open_task(config, tmp_path)[1]
    assert data.splits['dev'][0].fields == {'sentence1': '', 'sentence2': 'kep'}
