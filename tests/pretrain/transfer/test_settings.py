"""Numbers and names that no fine-tuning can have are refused before anything is read."""

import pytest

from configs import glue, snli, squad, superglue
from configs import own as own_task
from configs import transfer as of_papers
from pretrain.errors import UserError
from pretrain.transfer import benchmark, settings


def configs():
    made = [glue.get_config(), superglue.get_config(), snli.get_config(), own_task.get_config()]
    made += [squad.get_config(version) for version in ('v1.1', 'v2.0')]
    return made + [glue.get_config(name) for name in of_papers.SETTINGS]


def test_every_config_and_every_point_of_every_grid_is_fine():
    from pretrain import commandline

    for config in configs():
        config = settings.for_task(config, config.task)
        settings.check(config)
        for grid in config.grids.to_dict().values():
            points = benchmark.points_of(commandline.flatten(grid))
            assert len(points) > 1
            for point in points:
                settings.check(benchmark.with_point(config, point))
    for grid, count in (('bert', 24), ('small_bert', 20), ('roberta', 6)):
        flat = commandline.flatten(glue.get_config().grids[grid].to_dict())
        assert len(benchmark.points_of(flat)) == count


@pytest.mark.parametrize(
    ('key', 'value', 'says'),
    [
        ('transfer.cast', 'heads', r"transfer\.cast='heads' is none of head, text, choices"),
        ('transfer.pooling', 'firs', r"transfer\.pooling='firs' is none of first, last, mean"),
        ('transfer.normalise', 'words', r"transfer\.normalise='words' is none of none, tokens"),
        ('transfer.dtype', 'float8', r"transfer\.dtype='float8' is none of float32, bfloat16"),
        ('transfer.remat', 'some', r"transfer\.remat='some' is none of none, full, dots"),
        ('transfer.epochs', 0, r'transfer\.epochs=0 must be at least 1'),
        ('transfer.epochs', -3, r'transfer\.epochs=-3 must be at least 1'),
        ('transfer.batch_size', 0, r'transfer\.batch_size=0 must be at least 1'),
        ('transfer.eval_batch_size', 0, r'transfer\.eval_batch_size=0 must be at least 1'),
        ('transfer.warmup', 1.5, r'transfer\.warmup=1\.5 must be at least 0 and at most 1'),
        ('transfer.warmup', -0.1, r'transfer\.warmup=-0\.1 must be at least 0'),
        ('transfer.warmup', float('nan'), r'transfer\.warmup=nan must be'),
        ('transfer.length', -1, r'transfer\.length=-1 must be at least 0'),
        ('transfer.train_rows', -5, r'transfer\.train_rows=-5 must be at least 0'),
        ('transfer.hidden_width', -5, r'transfer\.hidden_width=-5 must be at least 0'),
        ('transfer.dropout', 1.0, r'transfer\.dropout=1\.0 must be from 0 to below 1, or -1'),
        ('transfer.dropout', -0.5, r'transfer\.dropout=-0\.5 must be from 0'),
        ('transfer.dropout', float('nan'), r'transfer\.dropout=nan must be from 0'),
        ('transfer.head_dropout', -1.0, r'transfer\.head_dropout=-1\.0 must be from 0'),
        ('transfer.layer_decay', 0.0, r'transfer\.layer_decay=0\.0 must be above 0'),
        ('transfer.layer_decay', 1.1, r'transfer\.layer_decay=1\.1 must be above 0, at most 1'),
        ('transfer.lm_coefficient', -1.0, r'transfer\.lm_coefficient=-1\.0 must be at least 0'),
        ('transfer.lm_coefficient', float('inf'), r'transfer\.lm_coefficient=inf must be'),
        ('transfer.groups', -1, r'transfer\.groups=-1 must be at least 0'),
        ('transfer.shots', -1, r'transfer\.shots=-1 must be at least 0'),
        ('transfer.answer_tokens', 0, r'transfer\.answer_tokens=0 must be at least 1 and'),
        ('transfer.answer_tokens', 129, r'transfer\.answer_tokens=129 must be .* at most 128'),
        ('squad.stride', 0, r'squad\.stride=0 must be at least 1'),
        ('squad.question_length', 0, r'squad\.question_length=0 must be at least 1'),
        ('squad.answer_length', 0, r'squad\.answer_length=0 must be at least 1'),
        ('squad.best', 0, r'squad\.best=0 must be at least 1'),
        ('squad.threshold', float('nan'), r'squad\.threshold=nan must be a number'),
        ('squad.version', '3.0', r"squad\.version='3\.0' is none of 1\.1, 2\.0"),
        ('seed', -1, r'seed=-1 must be at least 0'),
        ('seed', 2**31, r'seed=2147483648 must be'),
        ('optimizer.learning_rate', -1.0, r'optimizer\.learning_rate=-1 must be'),
        ('optimizer.name', 'adam', r"optimizer\.name 'adam' is unknown: did you mean 'adamw'"),
        ('optimizer.schedule.name', 'line', r"optimizer\.schedule\.name 'line' is unknown"),
        ('optimizer.schedule.warmup', 9.0, r'schedule\.warmup=9 has no part .* transfer\.warmup'),
        ('optimizer.schedule.final', 2.0, r'optimizer\.schedule\.final=2'),
        ('optimizer.no_decay', '(', r'optimizer\.no_decay'),
    ],
)  # fmt: skip
def test_what_cannot_be_is_said_in_one_line(key, value, says):
    config = squad.get_config()
    settings.check(config)
    section, _, name = key.rpartition('.')
    target = config
    for part in filter(None, section.split('.')):
        target = target[part]
    target[name] = value
    with pytest.raises(UserError, match=says) as raised:
        settings.check(config)
    assert '\n' not in str(raised.value)


def test_a_schedule_in_steps_is_not_judged_before_their_number_is_known():
    config = glue.get_config('sst2')
    config.optimizer.schedule.update(decay=50.0)
    settings.check(config)
    config.optimizer.schedule.update(name='wsd', decay=5.0)
    settings.check(config)
