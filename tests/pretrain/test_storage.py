"""A run on gs://: what a run on a disk does, against a server of this machine."""

import importlib.util
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from pretrain import commandline, restoration, run_folder, run_log, saved_run, storage
from pretrain.checkpoints import Checkpoints, read_config, restore_params, whole_steps
from pretrain.errors import UserError

# Without credentials the libraries ask the network for some, at every object.
NO_CREDENTIALS = {
    'NO_GCE_CHECK': 'true', 'GCE_METADATA_ROOT': 'localhost:1',
    'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
}  # fmt: skip


@pytest.fixture(scope='module')
def server():
    """A storage of this machine, which has a bucket named 'bucket'."""
    path = Path(__file__).with_name('storage_server.py')
    spec = importlib.util.spec_from_file_location('storage_server', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    server = module.Server('bucket')
    server.environment = NO_CREDENTIALS | {
        'STORAGE_EMULATOR_HOST': server.address, 'TENSORSTORE_GCS_HTTP_URL': server.address
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server
    server.shutdown()


@pytest.fixture
def objects(server):
    """The objects in the bucket, none at first."""
    server.refuse = None
    server.buckets['bucket'].clear()
    yield server.buckets['bucket']
    server.refuse = None


def state_of(step):
    return {'params': {'table': jnp.full((8, 16), step, jnp.float32)}, 'step': jnp.int32(step)}


def abstract():
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state_of(0))


def save(folder, *steps, keep=9):
    with Checkpoints(folder, {'seed': 3}, keep) as checkpoints:
        for step in steps:
            checkpoints.save(state_of(step), step, {'at': step}, 1 / step)


def restored_step(folder):
    state, progress = Checkpoints(folder, {}).restore(abstract())
    expected = state_of(progress['at'])
    jax.tree.map(np.testing.assert_array_equal, state, expected)
    return progress['at']


def largest(objects, prefix):
    return max((n for n in objects if n.startswith(prefix)), key=lambda n: len(objects[n].content))


def test_saved_and_restored_and_the_older_ones_removed(objects):
    folder = 'gs://bucket/run/checkpoints'
    assert Checkpoints(folder, {}).restore(abstract()) is None
    save(folder, 1, 2, 3, keep=2)
    assert whole_steps(folder) == [2, 3]
    assert {name.split('/')[2] for name in objects} == {'2', '3'}
    assert restored_step(folder) == 3
    assert read_config('gs://bucket/run') == {'seed': 3}
    assert restore_params(f'{folder}/2', abstract()['params'])['table'][0, 0] == 2


def test_a_save_that_was_cut_off_is_no_checkpoint_and_goes(objects):
    folder = 'gs://bucket/run/checkpoints'
    save(folder, 1, 2)
    for name in ('manifest.json', 'commit_success.txt'):
        del objects[f'run/checkpoints/2/{name}']
    assert whole_steps(folder) == [1]
    assert restored_step(folder) == 1
    assert not any(name.startswith('run/checkpoints/2/') for name in objects)
    save(folder, 2)
    assert restored_step(folder) == 2


def test_one_that_was_copied_from_a_disk_is_whole(objects, server, tmp_path):
    save(tmp_path, 4)
    for path in tmp_path.rglob('*'):
        if path.is_file():
            name = f'run/checkpoints/{path.relative_to(tmp_path)}'
            server.write('bucket', name, path.read_bytes())
    assert restored_step('gs://bucket/run/checkpoints') == 4
    save('gs://bucket/run/checkpoints', 5)
    assert whole_steps('gs://bucket/run') == [4, 5]
    # And from there to a disk.
    for name, stored in objects.items():
        path = tmp_path / 'back' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(stored.content)
    assert restored_step(tmp_path / 'back' / 'run' / 'checkpoints') == 5
    path = next((tmp_path / 'back' / 'run' / 'checkpoints' / '5' / 'params').rglob('d/*'))
    path.write_bytes(path.read_bytes()[:-1] + b'?')
    assert whole_steps(tmp_path / 'back' / 'run') == [4]


def test_damage_is_named_and_the_step_before_taken(objects, server, capsys):
    folder = 'gs://bucket/run/checkpoints'
    save(folder, 1, 2, 3, 4, 5)
    names = {step: largest(objects, f'run/checkpoints/{step}/params/') for step in (2, 3, 4)}
    content = {step: objects[name].content for step, name in names.items()}
    del objects[names[2]]
    server.write('bucket', names[3], content[3][:-1])
    server.write('bucket', names[4], content[4][:-1] + bytes([content[4][-1] ^ 1]))
    server.write('bucket', 'run/checkpoints/5/manifest.json', b'{"algorithm": "md5", "fil')
    said = {
        2: 'No such file or directory',
        3: f'{len(content[3]) - 1} bytes instead of {len(content[3])}',
        4: 'md5 differs',
    }  # fmt: skip
    with Checkpoints(folder, {}) as checkpoints:
        state, progress = checkpoints.restore(abstract())
        assert progress == {'at': 1}
        assert state['params']['table'][0, 0] == 1
        err = capsys.readouterr().err
        assert 'checkpoint 5 is damaged (manifest.json is not readable): using 1' in err
        for step, words in said.items():
            name = names[step].removeprefix(f'run/checkpoints/{step}/')
            assert f'checkpoint {step} is damaged ({name}: {words}): using 1' in err
        checkpoints.save(state_of(6), 6, {'at': 6})
    err = capsys.readouterr().err
    for step in (2, 3, 4, 5):
        moved = f'checkpoint {step} is damaged: moved to gs://bucket/run/checkpoints/damaged-{step}'
        assert moved in err
    assert objects[names[3].replace('/3/', '/damaged-3/')].content == content[3][:-1]
    assert whole_steps(folder) == [1, 6]


def test_what_the_storage_answers_is_said_in_one_line(objects, server):
    folder = 'gs://bucket/run/checkpoints'
    save(folder, 1)
    server.refuse = lambda method, path: 403 if method == 'POST' and '2%2F' in path else 0
    with pytest.raises(UserError, match=r'of step 2: PERMISSION_DENIED: .*/2/.*Forbidden; no'):
        save(folder, 2)
    server.refuse = lambda method, path: 403
    with pytest.raises(UserError, match=r"cannot write 'gs://bucket/run': .*(F|f)orbidden"):
        storage.check_writable('gs://bucket/run')
    server.refuse = None
    storage.check_writable('gs://bucket/run')
    assert not any('writable' in name for name in objects)
    with pytest.raises(UserError, match='there is no such bucket'):
        run_folder.check_config(storage.place('gs://other/run'), None, accept_changes=True)
    with pytest.raises(UserError, match='no such folder: gs://other/run'):
        read_config('gs://other/run')


def run(start, server, small, workdir, *flags):
    flags = [
        *small, '--config.steps=12', '--config.checkpoint.every=4', '--config.log.every=1',
        '--config.eval.windows=8', '--config.eval.every=6', *flags,
    ]  # fmt: skip
    return start('train', *flags, f'--workdir={workdir}', **server.environment)


def rows(workdir):
    """Of metrics.jsonl, without what the clock says."""
    kept = run_log.read_rows(workdir)
    return [{n: v for n, v in r.items() if n not in run_log.TIME_FIELDS} for r in kept]


def test_a_run_on_it_is_killed_and_ends_as_one_on_a_disk(
    objects, server, start, small, bits, tmp_path
):
    on_disk = run(start, server, small, tmp_path / 'run')
    killed = run(start, server, small, 'gs://bucket/runs/a')
    # While the checkpoint of step 8 is written.
    while not any('/checkpoints/8/' in name for name in list(objects)):
        assert killed.poll() is None, killed.communicate()
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    again = run(start, server, small, 'gs://bucket/runs/a')
    out, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    assert 'resumed from step 4' in out or 'resumed from step 8' in out
    assert 'curve: gs://bucket/runs/a/loss.png' in out
    err = on_disk.communicate(timeout=300)[1]
    assert on_disk.returncode == 0, err
    assert rows('gs://bucket/runs/a') == rows(tmp_path / 'run')
    assert bits(storage.place('gs://bucket/runs/a')) == bits(tmp_path / 'run')
    config = json.loads(objects['runs/a/config.json'].content)
    assert config == json.loads((tmp_path / 'run' / 'config.json').read_text())
    assert objects['runs/a/loss.png'].content.startswith(b'\x89PNG')
    assert any(name.startswith('runs/a/events.out.tfevents.') for name in objects)

    # And read by what generates and evaluates.
    there, here = (
        saved_run.open_run(folder, commandline.read_run_config(folder))
        for folder in ('gs://bucket/runs/a', tmp_path / 'run')
    )
    assert there.tokenizer.digest == here.tokenizer.digest
    jax.tree.map(np.testing.assert_array_equal, there.params, here.params)


def test_folders_that_may_not_lie_there_are_refused(refused, small):
    refused('train', [
        ([*small, '--workdir=s3://bucket/run'], 'neither a folder of this machine nor on gs://'),
        ([*small, '--workdir=gs://'], 'names no bucket'),
        ([*small, '--config.data.cache=gs://bucket/c', '--workdir=x'], 'only the workdir of'),
    ])  # fmt: skip
    folder = '--workdir=gs://bucket/x'
    refused('convert', [(['--from_huggingface=x', folder], 'only the workdir of pretrain.train')])


def test_gcsfs_is_asked_for(tmp_path):
    (tmp_path / 'gcsfs.py').write_text('raise ImportError')
    code = 'from pretrain import storage; storage.place("gs://bucket/run")'
    path = f'{tmp_path}:{Path(storage.__file__).parents[1]}'
    done = subprocess.run(
        [sys.executable, '-c', code], env={'PYTHONPATH': path}, capture_output=True, text=True
    )
    assert "gs:// needs gcsfs, which is not installed: pip install -e '.[gcs]'" in done.stderr


def test_a_folder_of_a_disk_stays_what_it_is(tmp_path):
    assert storage.place(str(tmp_path)) == tmp_path
    assert restoration.find(tmp_path) == (tmp_path, None)
    assert not storage.is_remote(tmp_path)
