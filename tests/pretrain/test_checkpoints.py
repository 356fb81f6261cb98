"""Checkpoints: the same bits on any mesh; right or refused after damage, kills and full disks."""

import json
import logging
import os
import signal
import socket
import subprocess
import sys
import warnings
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding

import pretrain
from pretrain import manifest
from pretrain.checkpoints import (
    Checkpoints,
    newest_whole,
    read_config,
    restore_params,
    whole_steps,
)
from pretrain.errors import UserError

ROOT = Path(pretrain.__file__).parents[1]
OPTIMIZER = optax.chain(
    optax.clip_by_global_norm(1.0), optax.adamw(optax.linear_schedule(1e-3, 0, 10))
)


def state_of(step, width=16, random=False):
    """A train state whose numbers are all `step`, or random bits."""
    params = {
        'embed': {'table': jnp.full((8, width), step, jnp.float32)},
        'scale': jnp.full((width,), step, jnp.bfloat16),
    }
    state = {'params': params, 'optimizer': OPTIMIZER.init(params), 'step': jnp.int32(step)}
    if not random:
        return jax.tree.map(lambda leaf: jnp.full_like(leaf, step), state)
    generator = np.random.default_rng(step)

    def noise(leaf):
        bits = generator.integers(0, 256, leaf.size * leaf.dtype.itemsize, np.uint8)
        return jnp.asarray(bits.view(leaf.dtype).reshape(leaf.shape))

    return jax.tree.map(noise, state)


def bits(tree):
    return [np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(tree)]


def abstract(state, sharding_of=lambda leaf: SingleDeviceSharding(jax.devices()[0])):
    return jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding_of(leaf)), state
    )


def sharded_over(*shape):
    mesh = Mesh(np.array(jax.devices()[: np.prod(shape)]).reshape(shape), ('data', 'fsdp'))

    def sharding_of(leaf):
        spec = PartitionSpec('fsdp', 'data') if leaf.ndim == 2 else PartitionSpec()
        return NamedSharding(mesh, spec)

    return sharding_of


def save(folder, *steps, keep=9, **options):
    with Checkpoints(folder, {'seed': 3}, keep) as checkpoints:
        for step in steps:
            checkpoints.save(state_of(step), step, {'at': step}, **options)


def restored_step(folder):
    """Restores, checks every number against the step, and returns the step."""
    state, progress = Checkpoints(folder, {}).restore(abstract(state_of(0)))
    assert bits(state) == bits(state_of(progress['at']))
    return progress['at']


def bulk_file(folder, item='params'):
    """The largest file of an item: the one that holds the arrays."""
    return max(Path(folder, item).rglob('d/*'), key=lambda path: path.stat().st_size)


def flip_bit(path, bit=None):
    content = bytearray(path.read_bytes())
    bit = len(content) * 4 if bit is None else bit
    content[bit // 8] ^= 1 << bit % 8
    path.write_bytes(content)


def test_bit_identical_from_one_device_to_eight_and_back(tmp_path):
    state = state_of(5, random=True)
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(state, 5, {'windows': 2**40})
    on_eight, progress = Checkpoints(tmp_path, {}).restore(abstract(state, sharded_over(2, 4)))
    assert progress == {'windows': 2**40}
    assert bits(on_eight) == bits(state)
    assert jax.tree.structure(on_eight) == jax.tree.structure(state)
    assert isinstance(on_eight['optimizer'][1][0], optax.ScaleByAdamState)
    table = on_eight['params']['embed']['table']
    assert len(table.sharding.device_set) == 8
    assert table.addressable_shards[0].data.shape == (2, 8)
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.save(on_eight, 6, {})
    for sharding_of in (sharded_over(4, 2), lambda leaf: SingleDeviceSharding(jax.devices()[3])):
        again, _ = Checkpoints(tmp_path, {}).restore(abstract(state, sharding_of))
        assert bits(again) == bits(state)
        assert again['params']['scale'].sharding == sharding_of(state['params']['scale'])


def test_nothing_to_restore(tmp_path):
    unfinished = tmp_path / 'run' / '5.orbax-checkpoint-tmp' / 'params'
    unfinished.mkdir(parents=True)
    assert Checkpoints(tmp_path / 'run', {}).restore(abstract(state_of(0))) is None
    assert not list((tmp_path / 'run').iterdir())
    assert whole_steps(tmp_path / 'run') == []


def test_keeps_the_newest_and_the_best(tmp_path):
    losses = {1: 5.0, 2: 1.0, 3: None, 4: float('nan'), 5: 3.0, 6: None}
    with Checkpoints(tmp_path, {}, keep=2) as checkpoints:
        for step, loss in losses.items():
            checkpoints.save(state_of(step), step, {}, loss)
    assert whole_steps(tmp_path) == [2, 5, 6]
    with Checkpoints(tmp_path, {}, keep=2) as checkpoints:
        checkpoints.save(state_of(7), 7, {}, 0.5)
        checkpoints.save(state_of(8), 8, {}, 0.9)
        checkpoints.save(state_of(9), 9, {})
    assert whole_steps(tmp_path) == [7, 8, 9]


def test_saved_arrays_are_the_ones_at_the_call(tmp_path):
    step = jax.jit(lambda state: jax.tree.map(lambda leaf: leaf + 1, state), donate_argnums=0)
    state = jax.tree.map(lambda leaf: jnp.zeros((512, 512)), state_of(0))
    shapes = abstract(state)
    with Checkpoints(tmp_path, {}, keep=1) as checkpoints:
        for number in range(1, 4):
            state = step(state)
            kept = np.asarray(state['step']).copy()
            checkpoints.save(state, number, {})
            for _ in range(5):
                state = step(state)
            restored, _ = checkpoints.restore(shapes)
            assert all(np.all(np.asarray(leaf) == kept) for leaf in jax.tree.leaves(restored))


def test_saving_a_whole_step_again_leaves_it(tmp_path):
    save(tmp_path, 5)
    before = (tmp_path / '5' / 'manifest.json').read_bytes()
    with Checkpoints(tmp_path, {}) as checkpoints:
        checkpoints.restore(abstract(state_of(0)))
        checkpoints.save(state_of(5), 5, {'at': 'the same step, as after a preemption'})
    assert (tmp_path / '5' / 'manifest.json').read_bytes() == before
    assert restored_step(tmp_path) == 5


def test_flipped_bit_is_named_and_the_step_can_be_saved_again(tmp_path, capsys):
    save(tmp_path, 20, 30, 40)
    bad = bulk_file(tmp_path / '40')
    flip_bit(bad)
    with Checkpoints(tmp_path, {}, keep=2) as checkpoints:
        state, progress = checkpoints.restore(abstract(state_of(0)))
        assert progress == {'at': 30}
        assert bits(state) == bits(state_of(30))
        name = bad.relative_to(tmp_path / '40').as_posix()
        reason = f'checkpoint 40 is damaged ({name}: sha256 differs): using 30\n'
        assert capsys.readouterr().err == reason
        assert (tmp_path / '40').is_dir()  # until the run writes
        checkpoints.save(state_of(35), 35, {'at': 35})
        checkpoints.save(state_of(40), 40, {'at': 40})
    assert whole_steps(tmp_path) == [35, 40]
    assert (tmp_path / 'damaged-40').is_dir()
    assert restored_step(tmp_path) == 40


def test_damage_that_nobody_looked_for_before_saving(tmp_path):
    save(tmp_path, 20, 30)
    flip_bit(bulk_file(tmp_path / '30'))
    save(tmp_path, 30)
    assert whole_steps(tmp_path) == [20, 30]


def test_a_flip_in_any_file_is_found_or_harmless(tmp_path, capsys):
    save(tmp_path, 1, validation_loss=2.0)
    save(tmp_path, 2, validation_loss=1.0)
    harmless = {'_CHECKPOINT_METADATA', 'commit_success.txt'}
    names = {
        path.relative_to(tmp_path / '2').as_posix()
        for path in (tmp_path / '2').rglob('*')
        if path.is_file()
    }
    assert harmless < names
    for name in sorted(names):
        before = (tmp_path / '2' / name).read_bytes()
        flip_bit(tmp_path / '2' / name, bit=3)
        assert restored_step(tmp_path) == (2 if name in harmless else 1), name
        (tmp_path / '2' / name).write_bytes(before)
    for name in harmless:
        (tmp_path / '2' / name).write_bytes(b'\xff{')
    flip_bit(tmp_path / '1' / 'metrics' / 'metrics', bit=3)
    save(tmp_path, 3)
    assert whole_steps(tmp_path) == [2, 3]


def test_every_step_damaged_is_an_error(tmp_path, capsys):
    save(tmp_path, 1, 2)
    flip_bit(bulk_file(tmp_path / '1', 'optimizer'))
    (tmp_path / '2' / 'manifest.json').unlink()
    with pytest.raises(UserError, match=r'every checkpoint in .* is damaged'):
        Checkpoints(tmp_path, {}).restore(abstract(state_of(0)))
    assert 'checkpoint 2 is damaged (no manifest.json): none before it' in capsys.readouterr().err
    assert whole_steps(tmp_path) == []


@pytest.mark.parametrize('part', ['in the background', 'manifest', 'at once'])
def test_disk_error_keeps_the_step_before(tmp_path, monkeypatch, part):
    def full(*args, **options):
        raise OSError(28, 'the words of the library')

    message = (
        r'^could not save checkpoint of step 2: No space left on device; '
        r'the checkpoint of step 1 is whole$'
    )
    with Checkpoints(tmp_path, {}, keep=1) as checkpoints:
        checkpoints.save(state_of(1), 1, {'at': 1})
        checkpoints.wait()
        with monkeypatch.context() as patch:
            if part == 'manifest':
                patch.setattr(manifest, 'write', full)
            elif part == 'in the background':
                patch.setattr('orbax.checkpoint.JsonCheckpointHandler.finalize', full)
            else:
                patch.setattr('orbax.checkpoint.CheckpointManager.save', full)
            if part == 'at once':
                with pytest.raises(UserError, match=message):
                    checkpoints.save(state_of(2), 2, {'at': 2})
            else:
                checkpoints.save(state_of(2), 2, {'at': 2})
                with pytest.raises(UserError, match=message):
                    checkpoints.save(state_of(3), 3, {'at': 3})
        assert whole_steps(tmp_path) == [1]
        assert restored_step(tmp_path) == 1
        checkpoints.save(state_of(4), 4, {'at': 4})
    assert whole_steps(tmp_path) == [4]
    assert [path.name for path in tmp_path.iterdir()] == ['4']


FULL_DISK = """
import resource, sys
import numpy as np, jax.numpy as jnp
from pretrain.checkpoints import Checkpoints
from pretrain.errors import UserError

def state(step):
    noise = np.random.default_rng(step).random(50_000, np.float32)
    return {'params': {'w': jnp.asarray(noise)}, 'optimizer': (), 'step': jnp.int32(step)}

checkpoints = Checkpoints(sys.argv[1], {}, keep=1)
checkpoints.save(state(1), 1, {'at': 1})
checkpoints.wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
try:
    checkpoints.save(state(2), 2, {'at': 2})
    checkpoints.close()
except UserError as error:
    print(error)
"""


def python(code, *arguments):
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'JAX_PLATFORMS': 'cpu'}
    return subprocess.Popen(
        [sys.executable, '-c', code, *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_a_real_write_error(tmp_path):
    output, errors = python(FULL_DISK, tmp_path).communicate(timeout=60)
    assert output == (
        'could not save checkpoint of step 2: File too large; the checkpoint of step 1 is whole\n'
    ), errors
    assert not (tmp_path / '2.orbax-checkpoint-tmp').exists()
    params = {'w': jax.ShapeDtypeStruct((50_000,), jnp.float32)}
    restored = restore_params(tmp_path, params)['w']
    expected = np.random.default_rng(1).random(50_000, np.float32)
    np.testing.assert_array_equal(restored, expected)
    Checkpoints(tmp_path, {})
    assert [path.name for path in tmp_path.iterdir()] == ['1']


# One process that imports everything once and forks the runs that are killed.
KILLED = """
import os, random, signal, sys, time
import numpy as np
import jax, jax.numpy as jnp
from pretrain.checkpoints import Checkpoints

def state(step):
    w = jnp.full((200, 1000), step, jnp.float32)
    return {'params': {'w': w}, 'optimizer': {'mu': -w}, 'step': jnp.int32(step)}

def saves_forever(folder, ready):
    checkpoints = Checkpoints(folder, {}, keep=1)
    found = checkpoints.restore(state(0))
    start = found[1]['at'] if found else 0
    if found:
        for got, wanted in zip(jax.tree.leaves(found[0]), jax.tree.leaves(state(start))):
            assert np.array_equal(got, wanted), start
    os.write(ready, f'{start}\\n'.encode())
    for step in range(start + 1, start + 10_000):
        checkpoints.save(state(step), step, {'at': step})

delays = random.Random(0)
for _ in range(6):
    read, ready = os.pipe()
    child = os.fork()
    if child == 0:
        saves_forever(sys.argv[1], ready)
    start = os.read(read, 100)
    assert start, 'the run failed to start'
    time.sleep(delays.uniform(0.1, 0.4))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    print(int(start), any('tmp' in name for name in os.listdir(sys.argv[1])), flush=True)
"""


def test_kill_while_saving(tmp_path):
    output, errors = python(KILLED, tmp_path).communicate(timeout=60)
    lines = [line.split() for line in output.splitlines()]
    assert len(lines) == 6, errors
    starts = [int(start) for start, _ in lines]
    assert starts == sorted(starts), starts
    assert starts[0] == 0 < starts[-1]
    assert any(unfinished == 'True' for _, unfinished in lines), lines
    assert 'damaged' not in errors
    params = {'w': jax.ShapeDtypeStruct((200, 1000), jnp.float32)}
    last = newest_whole(tmp_path)
    assert last >= starts[-1]
    assert np.all(np.asarray(restore_params(tmp_path, params)['w']) == last)


TWO_PROCESSES = """
import json, os, signal, sys, time
from pathlib import Path
import jax
port, number, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]
jax.config.update('jax_num_cpu_devices', 2)
jax.distributed.initialize(f'localhost:{port}', 2, number)
import jax.numpy as jnp, numpy as np, optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from pretrain import manifest
from pretrain.checkpoints import Checkpoints

mesh = Mesh(np.array(jax.devices()), 'fsdp')

def make(step):
    params = {'w': step * jnp.arange(32.0).reshape(8, 4)}
    return {'params': params, 'optimizer': optax.adam(1e-3).init(params), 'step': jnp.int32(step)}

abstract = jax.tree.map(
    lambda leaf: jax.ShapeDtypeStruct(
        leaf.shape,
        leaf.dtype,
        sharding=NamedSharding(mesh, PartitionSpec('fsdp') if leaf.ndim else PartitionSpec()),
    ),
    jax.eval_shape(make, 0),
)
build = jax.jit(make, out_shardings=jax.tree.map(lambda leaf: leaf.sharding, abstract))
written = []
write = manifest.write
manifest.write = lambda path: (written.append(Path(path).name), write(path))

def restored(checkpoints):
    state, progress = checkpoints.restore(abstract)
    shards = [np.asarray(shard.data).tolist() for shard in state['params']['w'].addressable_shards]
    return [progress['at'], int(state['step']), shards]

said = {}
with Checkpoints(folder, {'a': 1}) as checkpoints, checkpoints.watching_for_preemption():
    assert checkpoints.restore(abstract) is None
    for step in range(1, 400):
        if step == 3:
            checkpoints.save(build(step), step, {'at': step}, validation_loss=1.0)
        if step == 6 and number == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if checkpoints.preempted(step):
            break
        time.sleep(0.02)
    said['stopped'] = step
    checkpoints.save(build(step), step, {'at': step})
    checkpoints.wait()
    said['first'] = restored(checkpoints)
if number == 0:
    bulk = next(Path(folder, str(step)).glob('params/ocdbt.process_1/d/*'))
    bulk.write_bytes(bulk.read_bytes()[:-1] + b'!')
with Checkpoints(folder, {'a': 1}) as checkpoints:
    said['damaged'] = restored(checkpoints)
    checkpoints.save(build(step), step, {'at': step})
    checkpoints.wait()
    said['again'] = restored(checkpoints)
print(json.dumps({**said, 'written': written}))
"""


def test_two_processes(tmp_path):
    with socket.socket() as free:
        free.bind(('localhost', 0))
        port = free.getsockname()[1]
    runs = [python(TWO_PROCESSES, port, number, tmp_path) for number in range(2)]
    outputs = [run.communicate(timeout=60) for run in runs]
    assert all(run.returncode == 0 for run in runs), outputs
    first, second = (json.loads(output.splitlines()[-1]) for output, _ in outputs)
    stopped = first['stopped']
    assert 6 <= stopped < 399
    assert second['stopped'] == stopped
    w_8x4 = np.arange(32.0).reshape(8, 4)
    for number, said in enumerate((first, second)):
        for name, step in (('first', stopped), ('damaged', 3), ('again', stopped)):
            own = (step * w_8x4).reshape(4, 2, 4)[2 * number : 2 * number + 2]
            assert said[name] == [step, step, own.tolist()], name
    unfinished = [f'{step}.orbax-checkpoint-tmp' for step in (3, stopped, stopped)]
    assert first['written'] == unfinished
    assert second['written'] == []
    assert outputs[0][1].count('sha256 differs): using 3') == 1
    assert 'damaged' not in outputs[1][1]
    assert whole_steps(tmp_path) == [3, stopped]
    on_one = restore_params(tmp_path, {'w': jax.ShapeDtypeStruct((8, 4), jnp.float32)})
    np.testing.assert_array_equal(on_one['w'], stopped * w_8x4)


def test_quiet(tmp_path, capfd, caplog):
    caplog.set_level(logging.INFO, logger='absl')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        save(tmp_path, 1, 2, keep=1)
        assert restored_step(tmp_path) == 2
        restore_params(tmp_path, jax.eval_shape(state_of, 0)['params'])
    assert capfd.readouterr() == ('', '')
    assert not [record.getMessage() for record in caplog.records if record.name == 'absl']


def test_misfits_name_the_path(tmp_path):
    save(tmp_path, 1)
    checkpoints = Checkpoints(tmp_path, {})
    with pytest.raises(
        UserError, match=r'embed/table is \(8, 16\) in the checkpoint and \(8, 32\) here'
    ):
        checkpoints.restore(abstract(state_of(1, width=32)))
    shapes = abstract(state_of(1))
    shapes['params']['head'] = shapes['params']['scale']
    with pytest.raises(UserError, match=r'params of .* the checkpoint lacks head;'):
        checkpoints.restore(shapes)
    shapes = abstract(state_of(1))
    del shapes['params']['scale']
    with pytest.raises(UserError, match='the checkpoint has besides scale;'):
        checkpoints.restore(shapes)
    shapes = abstract(state_of(1))
    shapes['optimizer'] = abstract(optax.sgd(1.0).init(shapes['params']))
    with pytest.raises(UserError, match=r'optimizer of .* besides optimizer/1/0/count, .* more;'):
        checkpoints.restore(shapes)
    shapes = abstract(state_of(1))
    shapes['params']['scale'] = jax.ShapeDtypeStruct((16,), jnp.float32)
    with pytest.raises(UserError, match='scale is bfloat16 in the checkpoint and float32 here'):
        checkpoints.restore(shapes)


def test_params_and_config_alone(tmp_path, capsys):
    save(tmp_path / 'checkpoints', 10, 20, 30)
    flip_bit(bulk_file(tmp_path / 'checkpoints' / '30', 'params'))
    flip_bit(bulk_file(tmp_path / 'checkpoints' / '20', 'optimizer'))
    shapes = abstract(state_of(0)['params'], sharded_over(2, 4))
    params = restore_params(tmp_path, shapes)
    assert 'using 20' in capsys.readouterr().err
    assert bits(params) == bits(state_of(20)['params'])
    assert len(params['embed']['table'].sharding.device_set) == 8
    for place, step in ((tmp_path, 10), (tmp_path / 'checkpoints' / '10', None)):
        params = restore_params(place, shapes, step)
        assert bits(params) == bits(state_of(10)['params'])
    assert newest_whole(tmp_path) == 20
    assert whole_steps(tmp_path) == [10]
    assert read_config(tmp_path) == {'seed': 3}
    assert read_config(tmp_path / 'checkpoints', 10) == {'seed': 3}
    cast = {**shapes, 'scale': jax.ShapeDtypeStruct((16,), jnp.float32)}
    scale = restore_params(tmp_path, cast, 10)['scale']
    assert scale.dtype == jnp.float32
    assert np.all(np.asarray(scale) == 10)


def test_what_is_not_there_is_said(tmp_path):
    shapes = abstract(state_of(0)['params'])
    with pytest.raises(UserError, match='no such folder: nowhere'):
        restore_params('nowhere', shapes)
    with pytest.raises(UserError, match='no checkpoints in'):
        read_config(tmp_path)
    save(tmp_path, 10, 20)
    with pytest.raises(UserError, match=r'no checkpoint of step 15 in .*: there are 10, 20'):
        restore_params(tmp_path, shapes, 15)
    flip_bit(bulk_file(tmp_path / '20'))
    with pytest.raises(UserError, match=r'checkpoint 20 in .* is damaged \(params/.* differs\)'):
        restore_params(tmp_path, shapes, 20)
    with pytest.raises(UserError, match=r'checkpoint\.keep is 0'):
        Checkpoints(tmp_path, {}, keep=0)
    (tmp_path / 'file').touch()
    with pytest.raises(UserError, match=r'cannot write checkpoints to .*: Not a directory'):
        Checkpoints(tmp_path / 'file' / 'checkpoints', {})


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_first_signal_is_noted_and_the_second_acts(tmp_path, number):
    def ended(*arguments):
        raise KeyboardInterrupt

    before = signal.signal(number, ended)
    try:
        checkpoints = Checkpoints(tmp_path, {})
        assert signal.getsignal(number) is ended
        with checkpoints.watching_for_preemption():
            assert not checkpoints.preempted(1)
            os.kill(os.getpid(), number)
            assert checkpoints.preempted(2)
            with pytest.raises(KeyboardInterrupt):
                os.kill(os.getpid(), number)
        assert signal.getsignal(number) is ended
    finally:
        signal.signal(number, before)


def test_the_error_that_stopped_a_run_is_not_hidden_by_a_failed_save(tmp_path, monkeypatch, capsys):
    def full(*args, **options):
        raise OSError(28, 'full')

    monkeypatch.setattr(manifest, 'write', full)

    def run_that_breaks():
        with Checkpoints(tmp_path, {}) as checkpoints:
            checkpoints.save(state_of(1), 1, {})
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_that_breaks()
    assert 'error: could not save checkpoint of step 1: No space left' in capsys.readouterr().err
