"""Plans against what the programs really take, and one for a TPU that is not there."""

import copy
import json
import math

import jax
import pytest

from configs import gpt, t5
from launch import budget, plan, search, step_program, topology
from pretrain import train_step
from pretrain.errors import UserError

GIB = 2**30


def config_of(module, mesh, **changes):
    config = module.get_config('smoke')
    config.mesh, config.optimizer.name = mesh, 'adamw'
    config.model.update(changes)
    return config


def planned(config, name):
    found = topology.find(name)
    step = step_program.describe(config, found.devices)
    return found, step, budget.make(step, found)


@pytest.mark.parametrize(
    ('module', 'mesh'),
    [(gpt, 'data=2,fsdp=4'), (gpt, 'fsdp=2,tensor=2,sequence=2'), (t5, 'fsdp=8')],
)
def test_the_state_takes_the_bytes_that_were_planned(module, mesh):
    config = config_of(module, mesh)
    found = topology.find('cpu:8')
    step = step_program.describe(config, found.devices)
    shardings = jax.tree.map(lambda x: x.sharding, step.state)
    made = jax.jit(lambda: train_step.init_state(step.learner), out_shardings=shardings)()

    def held(tree, device):
        shards = [s for leaf in jax.tree.leaves(tree) for s in leaf.addressable_shards]
        return sum(s.data.nbytes for s in shards if s.device == device)

    rest = {name: part for name, part in made.items() if name != 'params'}
    for device in found.devices:
        assert held(made['params'], device) == step_program.bytes_on_a_device(step.state['params'])
        planned_rest = {name: part for name, part in step.state.items() if name != 'params'}
        assert held(rest, device) == step_program.bytes_on_a_device(planned_rest)


def test_fsdp_holds_its_share():
    """What the rules split falls as one in the number of devices."""
    sizes = []
    for count in (1, 2, 4, 8):
        config = config_of(gpt, f'fsdp={count}')
        step = step_program.describe(config, jax.devices()[:count])
        sizes.append(step_program.bytes_on_a_device(step.state))
    whole = sizes[-1] - (sizes[0] - sizes[-1]) / 7  # norms, biases, counters
    for count, size in zip((1, 2, 4, 8), sizes):
        assert size == pytest.approx(whole + (sizes[0] - whole) / count, rel=1e-6)
    assert whole < sizes[0] / 20


def test_a_scan_is_planned_as_what_it_unrolls_to():
    rolled = planned(config_of(gpt, 'data=1'), 'cpu:1')[2]
    unrolled = planned(config_of(gpt, 'data=1', unroll=True), 'cpu:1')[2]
    assert rolled.flops == pytest.approx(unrolled.flops, rel=0.02)
    assert rolled.flops == pytest.approx(rolled.model_flops, rel=0.1)
    assert rolled.collectives == []


def test_a_plan_for_a_tpu(launch, tmp_path):
    out = tmp_path / 'plan.json'
    flags = ['--config=configs/gpt.py:smoke', '--config.optimizer.name=adamw', f'--out={out}']
    code, said, err = launch('plan', *flags, '--topology=v5e:2x2', '--mesh=data=2,fsdp=2')
    assert code == 0, err
    for words in (
        '4 devices, mesh data=2,fsdp=2,tensor=1,sequence=1, 8 windows of 33 tokens a step',
        'fits: ', 'of 16 GiB', 'FLOPs a step', 'all-gather', 'fsdp', 'a step takes at least',
        'v5e, read 2026-11-23',
    ):  # fmt: skip
        assert words in said, words
    found = json.loads(out.read_text())
    assert out.with_suffix('.png').read_bytes().startswith(b'\x89PNG')
    assert found['topology'] == 'v5e:2x2'
    plan = found['plan']
    assert plan['fits']
    assert plan['bound'] == max(plan['seconds'].values())
    assert plan['state']['optimizer'] == 2 * plan['state']['parameters'] + 12  # three counters
    assert plan['loops'] == []


class Mesh(dict):
    @property
    def size(self):
        return math.prod(self.values())


def refused(state, memory=16 * GIB, total=112 * GIB, remat='full', rows=64, **mesh):
    """What the plan of a step says that does not fit."""
    mesh = {'data': 1, 'fsdp': 1, 'tensor': 1, 'sequence': 1} | mesh
    config = gpt.get_config('smoke')
    config.model.remat = remat
    step = step_program.Step(
        type('Mesh', (), {'shape': mesh, 'size': math.prod(mesh.values())}), None, None, None, rows,
        {}, 0.0,
    )  # fmt: skip
    made = budget.Budget(
        1, {'parameters': state * GIB, 'optimizer': 0}, 0, 0, total, memory, 0, {}, 0, [], [], {},
        0, 1, 0, 'too much',
    )  # fmt: skip
    return plan.verdict(config, step, made)


@pytest.mark.parametrize(
    ('facts', 'says'),
    [
        ({'state': 30, 'data': 16}, 'needs 112 GiB of 16: raise fsdp to 4 and lower data to 4'),
        ({'state': 400, 'data': 4}, 'raise fsdp to 4 and lower data to 1'),
        ({'state': 12, 'fsdp': 4}, 'more devices'),
        ({'state': 2, 'remat': 'dots'}, 'set model.remat=full'),
        ({'state': 2, 'data': 4}, 'set accumulation=2'),
        ({'state': 2, 'data': 64}, 'raise tensor or sequence'),
        ({'state': 2, 'total': None, 'remat': 'dots'}, 'needs more of 16'),
    ],
)
def test_what_to_change_when_it_does_not_fit(facts, says):
    assert says in refused(**facts)


def test_the_compiler_says_how_much_was_missing():
    said = (
        'RESOURCE_EXHAUSTED: Ran out of memory on HBM, the total memory required for HLO '
        'temporaries (278.01G) exceeds available HBM (95.74G).'
    )
    assert step_program._needed(said) == 278.01 * GIB
    assert step_program._needed('RESOURCE_EXHAUSTED: Used 31.50G of 15.75G hbm.') == 31.5 * GIB
    assert step_program._needed('RESOURCE_EXHAUSTED: no.') is None


def test_candidates_go_together_with_the_config():
    config = config_of(gpt, 'data=-1')
    found = search.candidates(config, topology.find('cpu:8'))
    meshes = [mesh for mesh, remat in found if remat == config.model.remat]
    assert meshes[:2] == ['data=8,fsdp=1,tensor=1', 'data=4,fsdp=2,tensor=1']
    assert {remat for _, remat in found} == {'none', 'dots', 'full'}
    for mesh in meshes:
        changed = copy.deepcopy(config)
        changed.mesh = mesh
        assert not step_program.describe(changed, jax.devices()).whole


def test_a_search_ranks_what_fits(monkeypatch):
    config = config_of(gpt, 'data=-1')
    found = topology.find('cpu:2')
    ranked = search.run(config, found, 2)
    # No table has the time of a step on a CPU: what needs less memory is first.
    assert [each.mesh for each in ranked] == ['data=1,fsdp=2,tensor=1', 'data=2,fsdp=1,tensor=1']
    assert 'ranked by memory' in search.table(ranked)
    assert 'yes' in search.table(ranked)
    small = found._replace(memory=1000.0)
    with pytest.raises(UserError, match='no mesh of 2 devices fits'):
        search.run(config, small, 2)


def test_what_is_wrong_is_said_in_one_line(refused):
    smoke = '--config=configs/gpt.py:smoke'
    refused('plan', [
        (['--topology=v5e:2x2'], '--config is missing'),
        ([smoke], '--topology is missing'),
        ([smoke, '--topology=cpu:99999'], '1 to 4096'),
        ([smoke, '--topology=*v5e:2x2'], 'before * stands a number of slices'),
        ([smoke, '--topology=cpu:4', '--mesh=fsdp=4', '--search'], 'give one of them'),
        ([smoke, '--topology=v5e:2x3'], 'the nearest is v5e:2x4'),
        ([smoke, '--topology=v5e:2x2', '--mesh=data=8'], 'set data=4'),
        ([smoke, '--topology=v5e:4x4'], 'batch_size=8 does not divide over the 16'),
        ([smoke, '--topology=v5e:2x2', 'more'], "unknown argument 'more'"),
        ([smoke, '--topology=v5e:2x2', '--out=plan.png'], 'should end in .json'),
        ([smoke, '--topology=v5e:2x2', '--out=not/there.json'], 'its folder is not there'),
    ])  # fmt: skip
