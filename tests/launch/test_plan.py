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
        'fits: ', 'of 15.75 GiB', 'FLOPs a step', 'all-gather', 'fsdp', 'a step takes at least',
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
        ({'state': 12, 'sequence': 4}, 'sequence=4 does not split it: give these devices to'),
        ({'state': 2, 'remat': 'dots'}, 'set model.remat=full'),
        ({'state': 2, 'data': 4}, 'set accumulation=2'),
        ({'state': 2, 'data': 8, 'rows': 24}, 'set accumulation=3'),
        ({'state': 9, 'remat': 'none'}, 'set model.remat=full'),
        ({'state': 2, 'data': 64}, 'raise tensor or sequence'),
        ({'state': 2, 'total': None, 'memory': None}, 'does not fit, says the compiler; how'),
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
    config.model.heads = 2
    found, left_out = search.candidates(config, topology.find('cpu:4'))
    names = [each.mesh for each in found]
    assert names[0] == 'data=4,fsdp=1,tensor=1'
    # Before a second mesh of one kind comes one of each kind that shares little.
    assert names.index('data=2,fsdp=1,tensor=2') < names.index('data=1,fsdp=4,tensor=1')
    assert any('sequence=2' in name for name in names)
    assert len(set(names)) == len(names)
    for each in found:
        changed = copy.deepcopy(config)
        changed.mesh = each.mesh
        step = step_program.describe(changed, jax.devices()[:4])
        assert not step.whole
        assert each.state == step_program.bytes_on_a_device(step.state)
    ((why, (count, one)),) = left_out.items()
    assert (why, count) == ('would leave something whole on every device', 1)
    assert '2 does not divide by tensor=' in one


def made_up(total, seconds):
    """A Budget of which only these two are looked at."""
    facts = dict.fromkeys(budget.Budget._fields, 0.0)
    return budget.Budget(**facts | {
        'total': total, 'memory': 100.0, 'seconds': {'compute': seconds}, 'refused': '',
    })  # fmt: skip


def tried_by(monkeypatch, own, tries, total, states=None):
    """(what a search compiles, its Found), where a program takes `total(mesh, remat)` bytes."""
    states = states or {'data=1': 10, 'data=2': 10, 'data=3': 10}
    meshes = [search.Candidate(mesh, (1, 1), state) for mesh, state in states.items()]
    compiled = []

    def plan(config, topology, mesh, remat):
        compiled.append((mesh, remat))
        return made_up(total(mesh, remat), seconds=int(mesh[-1]))

    monkeypatch.setattr(search, 'candidates', lambda *_: (meshes, {}))
    monkeypatch.setattr(search, '_plan', plan)
    config = gpt.get_config('tiny')
    config.model.remat = own
    found = topology.Topology('made up', [], None, 100.0)
    return compiled, search.run(config, found, tries)


def test_a_search_goes_to_full_where_the_own_remat_does_not_fit(monkeypatch):
    sizes = {'none': 200.0, 'dots': 90.0, 'full': 50.0}
    compiled, found = tried_by(monkeypatch, 'none', 8, lambda _, remat: sizes[remat])
    # What data=1 needs besides its state tells that the others cannot fit with `none` either.
    assert compiled == [
        ('data=1', 'none'), ('data=1', 'full'), ('data=2', 'full'), ('data=3', 'full'),
        ('data=1', 'dots'), ('data=2', 'dots'), ('data=3', 'dots'),
    ]  # fmt: skip
    assert (found.combinations, found.more) == (9, False)  # `none` does not fit anywhere
    fitting = [(each.mesh, each.remat) for each in found.trials if each.budget.fits]
    assert [mesh for mesh, _ in fitting] == [f'data={n}' for n in (1, 1, 2, 2, 3, 3)]
    assert '7 of 9 pairs of mesh and remat were compiled: no other' in search.table(found)


def test_the_last_tries_of_a_search_compute_less_again(monkeypatch):
    compiled, found = tried_by(monkeypatch, 'full', 4, lambda *_: 50.0)
    assert compiled == [
        ('data=1', 'full'), ('data=2', 'full'), ('data=3', 'full'), ('data=1', 'dots')
    ]  # fmt: skip
    assert '--tries=8 compiles more' in search.table(found)
    compiled, found = tried_by(monkeypatch, 'full', 100, lambda *_: 50.0)
    assert len(compiled) == len(set(compiled)) == 9
    assert not found.more


def test_a_search_does_not_give_up_a_kind_of_mesh_because_its_first_did_not_fit(monkeypatch):
    # Other than their state all need 85 of 100: what the first was refused for tells so.
    states = {'data=1': 60, 'data=2': 40, 'data=3': 10}
    compiled, found = tried_by(
        monkeypatch, 'full', 8, lambda mesh, _: states[mesh] + 85.0, states=states
    )
    assert compiled[:2] == [('data=1', 'full'), ('data=3', 'full')]
    assert found.trials[0].mesh == 'data=3'
    assert found.trials[0].budget.fits


def test_a_search_ranks_what_fits():
    config = config_of(gpt, 'data=-1')
    config.model.update(heads=1, head_width=32)
    devices = topology.find('cpu:2')
    found = search.run(config, devices, 2)
    # No table has the time of a step on a CPU: what needs less memory is first.
    assert [each.mesh for each in found.trials] == [
        'data=1,fsdp=2,tensor=1', 'data=2,fsdp=1,tensor=1'
    ]  # fmt: skip
    assert 'ranked by memory' in search.table(found)
    assert 'yes' in search.table(found)
    small = devices._replace(memory=1000.0)
    with pytest.raises(UserError, match=r'no mesh of 2 devices fits.* for the state alone'):
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
