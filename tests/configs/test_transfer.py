"""Configs of tasks: every variant builds, names its task, and keeps to its paper."""

import itertools

import pytest

from configs import glue, snli, squad, superglue, transfer
from configs import own as own_task
from configs.recipe import recipe
from pretrain.transfer import settings, sources

OF_BENCHMARKS = {'glue': glue, 'superglue': superglue}


@pytest.mark.parametrize('name', OF_BENCHMARKS)
def test_the_variants_are_the_tasks_that_have_a_model_of_their_own(name):
    module = OF_BENCHMARKS[name]
    tasks = sources.TASKS[name].values()
    assert sorted(module.TASKS) == sorted(t.name for t in tasks if not t.predicted_by)


@pytest.mark.parametrize('name', OF_BENCHMARKS)
def test_every_task_goes_with_every_setting(name):
    module = OF_BENCHMARKS[name]
    assert module.get_config().to_dict() == module.get_config('').to_dict()
    for task, setting in itertools.product(('', *module.TASKS), ('', *transfer.SETTINGS)):
        config = module.get_config(','.join(filter(None, (task, setting))))
        assert (config.benchmark, config.task) == (name, task)
        swapped = module.get_config(','.join(filter(None, (setting, task))))
        assert swapped.transfer.to_dict() == config.transfer.to_dict()
        assert set(config.optimizer) == set(recipe().optimizer)
        assert set(config.transfer) == set(transfer.transfer(name).transfer)


@pytest.mark.parametrize('setting', ['', *transfer.SETTINGS])
def test_snli_and_a_task_of_ones_own_have_the_settings_too(setting):
    config = snli.get_config(setting)
    assert (config.benchmark, config.task) == ('snli', 'snli')
    config = own_task.get_config(setting)
    assert (config.benchmark, config.task) == ('own', 'own')
    wanted = transfer.transfer('own')
    if setting:
        transfer.SETTINGS[setting](wanted)
    assert config.transfer.to_dict() == wanted.transfer.to_dict()


def test_squads_versions():
    for version in ('1.1', '2.0'):
        config = squad.get_config(f'v{version}')
        assert config.squad.version == version
        assert config.benchmark == 'squad'
        assert config.task == f'squad_v{version}'
    assert squad.get_config().squad.version == '1.1'
    # Devlin et al. 2018, the released run_squad.py.
    assert (config.transfer.length, config.squad.stride, config.squad.question_length) == (
        384, 128, 64,
    )  # fmt: skip
    assert (config.squad.best, config.squad.answer_length) == (20, 30)


def test_the_default_is_one_setting_for_all_tasks():
    first = transfer.transfer('glue', 'cola')
    for module in OF_BENCHMARKS.values():
        for task in module.TASKS:
            config = module.get_config(task)
            assert config.transfer.to_dict() == first.transfer.to_dict()
            assert config.optimizer.to_dict() == first.optimizer.to_dict()
    section, optimizer = first.transfer, first.optimizer
    assert section.epochs <= 5
    assert (section.batch_size, section.epochs, section.warmup) == (16, 3, 0.1)
    assert (section.dropout, section.head_dropout) == (0.1, 0.1)
    assert (optimizer.name, optimizer.learning_rate) == ('adamw', 5e-5)
    assert optimizer.weight_decay == 0.01
    assert (optimizer.schedule.name, optimizer.schedule.final) == ('linear', 0.0)


def test_settings_of_papers():
    electra = glue.get_config('electra')
    assert electra.transfer.layer_decay == 0.8
    assert (electra.transfer.epochs, electra.optimizer.learning_rate) == (0, 1e-4)
    for task, epochs in (('rte', 10), ('stsb', 10), ('mrpc', 3)):
        # The same by `finetune`, which is given one task, and by `evaluate`, which is given all.
        for config in (electra, glue.get_config(f'{task},electra')):
            assert settings.for_task(config, task).transfer.epochs == epochs, task
    electra.transfer.epochs = 5  # a number of one's own is for all
    assert settings.for_task(electra, 'rte').transfer.epochs == 5
    assert settings.for_task(glue.get_config(), 'rte').transfer.epochs == 3
    of_squad = squad.get_config('v2.0,electra')
    assert settings.for_task(of_squad, of_squad.task).transfer.epochs == 2
    assert (of_squad.transfer.layer_decay, of_squad.transfer.length) == (0.8, 384)
    assert (of_squad.squad.version, squad.get_config('electra').squad.version) == ('2.0', '1.1')
    gpt = glue.get_config('sst2,gpt')
    assert (gpt.transfer.lm_coefficient, gpt.transfer.warmup) == (0.5, 0.002)
    assert (gpt.optimizer.learning_rate, gpt.transfer.batch_size) == (6.25e-5, 32)
    t5 = glue.get_config('sst2,t5')
    assert (t5.optimizer.name, t5.optimizer.schedule.name) == ('adafactor', 'constant')
    ulmfit = glue.get_config('sst2,ulmfit')
    assert ulmfit.transfer.layer_decay == pytest.approx(1 / 2.6)
    assert (ulmfit.optimizer.schedule.name, ulmfit.optimizer.schedule.final) == ('slanted', 1 / 32)
    assert (ulmfit.transfer.unfreeze, ulmfit.transfer.pooling) == (True, 'concat')
    assert glue.get_config('frozen').transfer.groups == 1
    elmo = glue.get_config('elmo')
    assert (elmo.transfer.groups, elmo.transfer.mix_layers) == (1, True)


@pytest.mark.parametrize(
    ('module', 'name', 'says'),
    [
        (glue, 'sst', "unknown variant 'sst'; did you mean 'sst2'?"),
        (glue, 'ax', "unknown variant 'ax'"),
        (glue, 'boolq', "unknown variant 'boolq'"),
        (glue, 'sst2,electr', "unknown variant 'electr'; did you mean 'electra'?"),
        (glue, 'sst2,mrpc', "'sst2,mrpc' names two tasks"),
        (glue, 'gpt,t5', "'gpt,t5' names two settings"),
        (superglue, 'wics', "unknown variant 'wics'; did you mean 'wic'?"),
        (snli, 'mnli', "unknown variant 'mnli'; did you mean 'snli'?"),
        (own_task, 'xyzzy', "unknown variant 'xyzzy'; there are: own, electra"),
        (squad, 'v1', "unknown variant 'v1'; did you mean 'v1.1'?"),
    ],
)
def test_an_unknown_variant_is_said_in_one_line(module, name, says):
    with pytest.raises(ValueError, match=r'variant|names two') as raised:
        module.get_config(name)
    assert str(raised.value).startswith(says)
    assert '\n' not in str(raised.value)
