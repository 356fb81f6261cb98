"""A config and a folder become a task, its examples and the digest that stored results name."""

import pytest

from configs import glue as configs_of_glue
from configs import own as own_task
from configs import snli
from configs import superglue as configs_of_superglue
from pretrain.errors import UserError
from pretrain.transfer import sources
from pretrain.transfer.experiment import Experiment

NLI = ('entailment', 'neutral', 'contradiction')
PAIR = ('sentence1', 'sentence2')
MNLI_FILES = ('train', 'dev_matched', 'dev_mismatched', 'test_matched', 'test_mismatched')


@pytest.fixture
def data_dir(toy, tmp_path):
    """SST-2, MNLI and AX."""
    folder = tmp_path / 'glue'
    toy.glue(folder, 'SST-2', ['sentence'], [0, 1], {'train': 6, 'dev': 4, 'test': 2})
    toy.glue(folder, 'MNLI', PAIR, NLI, dict.fromkeys(MNLI_FILES, 6))
    rows = [{'index': i, 'sentence1': 'ba', 'sentence2': 'kep'} for i in range(3)]
    toy.tsv(folder / 'AX' / 'AX.tsv', rows)
    return folder


def test_a_task_comes_with_its_splits_and_with_the_diagnostic_set_that_its_model_answers(data_dir):
    task, data = sources.open_task(configs_of_glue.get_config('mnli'), data_dir)
    assert task.name == 'mnli'
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        'train': 6, 'dev': 6, 'dev_mismatched': 6, 'test': 6, 'test_mismatched': 6,
    }  # fmt: skip
    assert [e.label for e in data.splits['dev']] == [*NLI, *NLI]
    assert list(data.related) == ['ax']
    ax, examples = data.related['ax']
    assert (ax.title, len(examples)) == ('AX', 3)
    task, data = sources.open_task(configs_of_glue.get_config('sst2'), data_dir)
    assert set(data.splits) == {'train', 'dev', 'test'}
    assert data.related == {}
    (data_dir / 'AX' / 'AX.tsv').unlink()
    assert sources.open_task(configs_of_glue.get_config('mnli'), data_dir)[1].related == {}


def test_both_diagnostic_sets_come_with_superglues_rte(toy, tmp_path):
    pair = {'premise': 'ba', 'hypothesis': 'kep'}
    rows = [{'idx': i, 'label': 'entailment', **pair} for i in range(2)]
    for name in ('train', 'val'):
        toy.jsonl(tmp_path / 'RTE' / f'{name}.jsonl', rows)
    toy.jsonl(tmp_path / 'AX-b' / 'AX-b.jsonl', [{'idx': 0, 'sentence1': 'a', 'sentence2': 'b'}])
    toy.jsonl(tmp_path / 'AX-g' / 'AX-g.jsonl', [{'idx': i, 'pair_id': 7, **pair} for i in (0, 1)])
    _, data = sources.open_task(configs_of_superglue.get_config('rte'), tmp_path)
    assert {name: len(rows) for name, (_, rows) in data.related.items()} == {'axb': 1, 'axg': 2}
    assert set(data.splits) == {'train', 'dev'}


def test_the_digest_is_of_every_text_and_every_label(data_dir):
    config = configs_of_glue.get_config('mnli')
    first = sources.open_task(config, data_dir)[1].digest
    assert first == sources.open_task(config, data_dir)[1].digest
    assert first != sources.open_task(configs_of_glue.get_config('sst2'), data_dir)[1].digest
    digests = {first}
    for path, before, after in (
        ('MNLI/train.tsv', 'neutral', 'entailment'),
        ('MNLI/dev_mismatched.tsv', 'neutral', 'entailment'),
        ('MNLI/test_matched.tsv', '0\t', '0\tx'),
        ('AX/AX.tsv', 'kep', 'pox'),
    ):
        file = data_dir / path
        file.write_text(file.read_text().replace(before, after))
        digests.add(sources.open_task(config, data_dir)[1].digest)
    assert len(digests) == 5
    (data_dir / 'AX' / 'AX.tsv').unlink()
    assert sources.open_task(config, data_dir)[1].digest not in digests


def test_a_task_of_ones_own_and_snli(toy, tmp_path):
    rows = [{'sentence': 'ba', 'label': 'x'}, {'sentence': 'kep', 'label': 'y'}]
    for split in ('train', 'dev'):
        toy.tsv(tmp_path / f'{split}.tsv', rows)
    config = own_task.get_config()
    config.own.labels = ('x', 'y')
    task, data = sources.open_task(config, tmp_path)
    assert task.labels == ('x', 'y')
    assert [e.label for e in data.splits['dev']] == ['x', 'y']
    pair = {'sentence1': 'ba', 'sentence2': 'kep'}
    for split in ('train', 'dev', 'test'):
        rows = [{'gold_label': label, **pair} for label in (*NLI, '-')]
        toy.jsonl(tmp_path / f'snli_1.0_{split}.jsonl', rows)
    _, data = sources.open_task(snli.get_config(), tmp_path)
    assert {split: len(rows) for split, rows in data.splits.items()} == {
        'train': 3, 'dev': 3, 'test': 3,
    }  # fmt: skip


@pytest.mark.parametrize(
    ('changes', 'says'),
    [
        ({'benchmark': 'blue'}, "benchmark='blue' is none of glue, superglue, snli, squad, own"),
        ({'task': 'sst'}, "task='sst' is none of cola, sst2"),
        ({'task': 'boolq'}, "task='boolq' is none of"),
        ({'task': 'rte'}, r'there is no RTE/train\.tsv'),
        ({'benchmark': 'superglue', 'task': 'cb'}, 'looks like GLUE'),
        ({'benchmark': 'snli', 'task': 'snli'}, 'looks like GLUE'),
    ],
)
def test_what_is_not_there_is_said(changes, says, data_dir):
    config = configs_of_glue.get_config()
    with config.unlocked():
        config.update(changes)
    with pytest.raises(UserError, match=says) as raised:
        sources.open_task(config, data_dir)
    assert '\n' not in str(raised.value)


def test_the_experiment_suits_the_task(tiny, quick, sst2_data, one_device):
    from configs import squad
    from pretrain.transfer import glue, squad_task

    config = quick(transfer__cast='choices')
    made = sources.open_experiment(
        tiny('decoder'), glue.TASKS['sst2'], sst2_data(), config, one_device
    )
    assert type(made) is Experiment
    config = quick(config=squad.get_config(), transfer__cast='choices')
    task = glue.TASKS['sst2'].__class__(
        'squad_v1.1', 'SQuAD', 'squad', 'span', (), (), (), read=None
    )
    made = sources.open_experiment(tiny('decoder'), task, sst2_data(), config, one_device)
    assert type(made) is squad_task.SquadExperiment
