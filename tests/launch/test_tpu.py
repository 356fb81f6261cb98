"""The life of a pod, each subcommand as a user calls it; the pod's workers are folders here."""

import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

PLACE = ['--zone=us-west4-a', '--project=my-project']
TRAINING = ['--', 'pretrain.train', '--config=configs/gpt.py:tiny', '--workdir=gs://bucket/gpt2']
ODD = '--config.data.source=text:it\'s "a" $HOME file'
# Ends as the words of ~/codes say, one a start, and writes down its own words.
TRAIN = """#!/bin/bash
case "$*" in
  *version_info*) exit 0 ;;
  '-m venv '*) mkdir -p "${!#}"/bin; cp "$0" "${!#}"/bin/python ;;
  '-m pip '*) ;;
  *launch.staging*) exec PYTHON "$@" ;;
  *pretrain.train*)
    printf '%s\\0' "$@" > "$HOME"/words
    read -r code rest < "$HOME"/codes
    echo "$rest" > "$HOME"/codes
    echo "worker $WORKER, JAX_PLATFORMS=$JAX_PLATFORMS"
    while [ "$code" = wait ] && [ ! -e "$HOME"/go ]; do sleep 0.05; done
    exit "${code/wait/0}" ;;
esac
"""


class Pod:
    """A pod that the fake gcloud describes, with a home folder for each worker."""

    def __init__(self, cluster, hosts, **facts):
        created = (datetime.now(UTC) - timedelta(hours=2)).isoformat()
        self.node = {
            'name': 'projects/my-project/locations/us-west4-a/nodes/gpt2', 'state': 'READY',
            'acceleratorType': 'v5litepod-16', 'networkEndpoints': [{}] * hosts,
            'createTime': created, 'labels': {'launch-end': 'delete-after-8h'},
        } | facts  # fmt: skip
        self.cluster, self.homes = cluster, cluster.hosts(hosts)
        cluster.answer('tpu-vm describe gpt2', json.dumps(self.node))
        cluster.answer('storage', '')
        for name in ('python3.13', 'python3.12'):
            cluster.program(name, TRAIN.replace('PYTHON', sys.executable))

    def codes(self, *codes):
        """What the training on each worker ends with."""
        for home in self.homes:
            (home / 'codes').write_text(' '.join(map(str, codes)))

    def commands(self):
        """The gcloud commands so far, those of ssh but for their flags."""
        words = [' '.join(call[1]) for call in self.cluster.calls('gcloud')]
        return [word for word in words if 'describe' not in word]


@pytest.fixture
def absent(cluster):
    """gcloud knows of no pod and of no queued resource."""
    said = 'ERROR: (gcloud.compute) NOT_FOUND: Resource was not found.\n- more of it\n'
    cluster.answer('describe gpt2', code=1, error=said)


@pytest.fixture
def project(tmp_path):
    """A git checkout with what a worker needs of the project."""
    folder = tmp_path / 'checkout'
    for name in ('launch', 'pretrain'):
        (folder / name).mkdir(parents=True)
    root = os.path.join(os.path.dirname(__file__), '..', '..', 'launch')
    for name in ('install.sh', 'supervisor.sh'):
        (folder / 'launch' / name).write_text(open(os.path.join(root, name)).read())
    subprocess.run(['git', 'init', '--quiet', folder], check=True)
    (folder / '.gitignore').write_text('/cache/\n')
    (folder / 'cache').mkdir()
    (folder / 'cache' / 'large').write_text('large')
    return folder


@pytest.fixture
def pod(cluster, launch, project):
    """A pod of two workers, with the project on them."""
    made = Pod(cluster, 2)
    code, out, err = launch('tpu', 'setup', 'gpt2', *PLACE, folder=project)
    assert code == 0, err
    assert 'installed on 2 workers' in out
    yield made
    for home in made.homes:  # a test that has failed leaves no worker that waits
        (home / 'codes').write_text('0')
        (home / 'go').touch()


def test_create(launch, cluster, absent):
    kind = ['create', 'gpt2', '--type=v5litepod-16', *PLACE]
    made = 'compute tpus tpu-vm create gpt2 --zone=us-west4-a --project=my-project'
    queued = 'compute tpus queued-resources create gpt2 --zone=us-west4-a --project=my-project'
    for flags, command, has in (
        (['--keep_running'], made, ['--version=v2-alpha-tpuv5-lite', 'launch-end=kept']),
        (['--delete_after=8h'], made, ['startup-script=', 'launch-end=delete-after-8h']),
        (['--delete_after=8h', '--spot'], queued, ['--spot', '--node-id=gpt2', 'startup-script=']),
        (['--keep_running', '--queued'], queued, ['--runtime-version=v2-alpha-tpuv5-lite']),
        (
            ['--max_run_duration=2h'], f'alpha {queued}',
            ['--max-run-duration=7200s', '--provisioning-model=flex-start'],
        ),
    ):  # fmt: skip
        code, out, err = launch('tpu', *kind, *flags)
        assert code == 0, err
        ran = ' '.join(cluster.calls('gcloud')[-1][1])
        assert ran.startswith(command)
        for text in ['--accelerator-type=v5litepod-16', *has]:
            assert text in ran
        assert '16 chips, 4 hosts' in out
        assert 'python -m launch.tpu delete gpt2 --zone=us-west4-a --project=my-project' in out


def test_setup_brings_the_working_tree(pod):
    for home in pod.homes:
        assert (home / 'pretraining' / 'project' / 'launch' / 'supervisor.sh').exists()
        assert not (home / 'pretraining' / 'project' / 'cache').exists()  # git ignores it
        assert (home / 'pretraining' / 'venv' / 'bin' / 'python').exists()


def test_a_run_on_all_workers_is_restarted_until_it_is_done(launch, pod):
    pod.codes(143, 1, 0)
    words = ['run', 'gpt2', *PLACE, '--pause=0', *TRAINING, ODD]
    code, out, err = launch('tpu', *words)
    assert code == 0, out + err
    assert out.count('worker 0, JAX_PLATFORMS=tpu,cpu') == 3
    assert 'run: 2 workers: ended with exit code 0' in out
    assert "the pod 'gpt2' runs on (delete-after-8h)" in out
    for home in pod.homes:
        said = (home / 'words').read_text().split('\0')[:-1]
        assert said == ['-m', 'pretrain.train', '--distributed', *TRAINING[2:], ODD]
    assert not any(' delete ' in command for command in pod.commands())
    assert launch('tpu', 'status', 'gpt2', *PLACE)[1].count('ended with exit code 0') == 1


def test_a_run_that_cannot_start_is_not_restarted(launch, pod):
    pod.codes(2, 0)
    code, out, _ = launch('tpu', 'run', 'gpt2', *PLACE, '--pause=0', *TRAINING)
    assert (code, out.count('worker 0,')) == (2, 1)
    assert 'run: 2 workers: ended with exit code 2' in out


def test_a_worker_may_end_later(launch, pod):
    pod.codes(0)
    (pod.homes[1] / 'codes').write_text('wait')
    _, out, ended = launch('tpu', 'run', 'gpt2', *PLACE, *TRAINING, background=True)
    until(lambda: 'ended with exit code 0' in out.read_text())
    (pod.homes[1] / 'go').touch()
    code, out, err = ended()
    assert code == 0, err
    assert 'run: 2 workers: ended with exit code 0' in out


def test_a_connection_that_breaks_leaves_the_run(launch, cluster, pod):
    pod.codes('wait')
    cluster.answer('tpu-vm ssh gpt2 --zone=us-west4-a --project=my-project --worker=0', code=255)
    code, out, err = launch('tpu', 'run', 'gpt2', *PLACE, *TRAINING)
    assert code == 1, err
    assert 'run: 2 workers: running' in out
    assert 'the run has not ended on all workers' in out
    assert 'costs until python -m launch.tpu delete gpt2' in out
    for home in pod.homes:
        (home / 'go').touch()


def test_a_run_that_crashes_is_restarted_so_often(launch, pod):
    pod.codes(1, 1, 1, 1)
    code, out, _ = launch('tpu', 'run', 'gpt2', *PLACE, '--pause=0', '--restarts=1', *TRAINING)
    assert (code, out.count('worker 0,')) == (1, 2)


def test_a_pod_is_deleted_when_its_run_is_done(launch, cluster, pod):
    pod.codes(0)
    code, out, err = launch('tpu', 'run', 'gpt2', *PLACE, '--delete_when_done', *TRAINING)
    assert code == 0, err
    delete = 'compute tpus tpu-vm delete gpt2 --zone=us-west4-a --project=my-project'
    # Worker 0 itself, and from here, as gcloud still describes it; which is first is not known.
    until(lambda: len([c for c in pod.commands() if c.startswith(delete)]) == 2)
    assert "the pod 'gpt2' is being deleted" in out
    copied = lambda: [c for c in pod.commands() if c.startswith('storage cp')]  # noqa: E731
    until(lambda: len(copied()) == 2)
    copied = copied()
    assert sorted(c.rpartition('/')[2] for c in copied) == ['worker-0.log', 'worker-1.log']
    assert all(' gs://bucket/gpt2/logs/' in c for c in copied)


def until(condition):
    """Waits, at most 20 s."""
    end = time.time() + 20
    while time.time() < end and not condition():
        time.sleep(0.05)
    assert condition()


def begin(launch, pod):
    """A launcher that follows the run that it has begun, as launch(background=True) returns it."""
    pod.codes('wait')
    begun = launch('tpu', 'run', 'gpt2', *PLACE, *TRAINING, background=True)
    until(lambda: all((home / 'words').exists() for home in pod.homes))
    until(lambda: 'worker 0' in begun[1].read_text())
    return begun


def test_interrupted_it_says_what_runs_on_and_comes_back_to_it(launch, refused, pod):
    number, _, ended = begin(launch, pod)
    os.killpg(number, signal.SIGINT)
    code, _, err = ended()
    assert code == 130
    assert "the pod 'gpt2' may be running, and costs until" in err
    assert 'python -m launch.tpu delete gpt2 --zone=us-west4-a --project=my-project' in err
    assert 'Traceback' not in err
    status = launch('tpu', 'status', 'gpt2', *PLACE)[1]
    assert 'v5litepod-16, 2 hosts, us-west4-a, READY, for 2.0 h' in status
    assert 'what ends it: delete-after-8h' in status
    assert 'run: 2 workers: running env JAX_PLATFORMS=tpu,cpu' in status
    other = ['run', 'gpt2', *PLACE, *TRAINING, '--config.steps=7']
    refused('tpu', [(other, "another run is on 'gpt2'")])
    _, out, ended = launch('tpu', 'run', 'gpt2', *PLACE, *TRAINING, background=True)
    until(lambda: 'this follows it' in out.read_text())
    until(lambda: 'worker 0' in out.read_text())
    for home in pod.homes:
        (home / 'go').touch()
    code, out, err = ended()
    assert code == 0, err
    assert out.count('begins: ') == 1  # in the log, from its first line on
    assert 'run: 2 workers: ended with exit code 0' in out
    assert launch('tpu', 'logs', 'gpt2', *PLACE, '--worker=1')[1].count('worker 1,') >= 1


def test_stop_ends_the_run_alone(launch, pod):
    _, _, ended = begin(launch, pod)
    code, out, err = launch('tpu', 'stop', 'gpt2', '--run_only', *PLACE)
    assert code == 0, err
    assert 'run: 2 workers: ended with exit code 143' in out
    assert "the pod 'gpt2' runs on" in out
    assert ended()[0] == 143


def test_a_pod_of_one_host_is_stopped(launch, cluster):
    alone = Pod(cluster, 1)
    code, out, err = launch('tpu', 'stop', 'gpt2', *PLACE)
    assert (code, 'still there, disk and all' in out) == (0, True), err
    assert alone.commands()[-1].startswith('compute tpus tpu-vm stop gpt2')


def test_workers_that_do_not_answer_are_counted(refused, cluster, pod):
    cluster.answer('tpu-vm ssh', 'launch-state: no run\n')
    refused('tpu', [(['run', 'gpt2', *PLACE, *TRAINING], '1 of 2 workers have begun')])
    cluster.answer('tpu-vm ssh', '')
    refused('tpu', [(['run', 'gpt2', *PLACE, *TRAINING], "no worker of 'gpt2' has answered")])
    cluster.answer('tpu-vm ssh', 'launch-seen\nlaunch-verified 0\n')
    cloud = ['stage', 'gpt2', *PLACE, '--corpus=gs://bucket/c']
    refused('tpu', [(cloud, '1 of 2 workers have verified the corpus')])
    cluster.answer('tpu-vm ssh', 'launch-verified 0\nlaunch-verified 1\n')
    refused('tpu', [(cloud, 'the workers have different corpora: 0, 1')])


def test_a_corpus_from_here_is_staged_and_verified(launch, refused, cluster, pod, corpus):
    shutil.rmtree(pod.homes.pop())
    Pod(cluster, 1)
    to = f'--to=pretraining/{corpus.name}-disk'
    code, out, err = launch('tpu', 'stage', 'gpt2', *PLACE, f'--corpus={corpus}/', to)
    assert code == 0, err
    assert '1 workers have' in out
    for home in pod.homes:
        copied = home / 'pretraining' / f'{corpus.name}-disk' / corpus.name
        assert (copied / 'sha256.json').read_bytes() == (corpus / 'sha256.json').read_bytes()
    # What a worker has is not what was sealed: a corpus on gs://, which rsync finds there already.
    tokens = copied / 'shard-00000' / 'train.tokens.npy'
    tokens.write_bytes(tokens.read_bytes()[:-1] + b'\xff')
    cloud = ['stage', 'gpt2', *PLACE, f'--corpus=gs://bucket/{corpus.name}', to]
    refused('tpu', [(cloud, 'failed with exit code 2: error: 1 files differ')])
    assert any(
        shlex.split(command)[:4] == ['storage', 'rsync', '--recursive', cloud[-2][9:]]
        for command in pod.commands()
    )


def test_delete(launch, cluster):
    made = Pod(cluster, 1)
    code, out, err = launch('tpu', 'delete', 'gpt2', *PLACE)
    assert (code, 'is being deleted' in out) == (0, True), err
    assert made.commands()[-1].startswith('compute tpus tpu-vm delete gpt2')
    Pod(cluster, 1, queuedResource='projects/p/queuedResources/gpt2')
    launch('tpu', 'delete', 'gpt2', *PLACE)
    assert made.commands()[-1].startswith('compute tpus queued-resources delete gpt2')
    cluster.answer('tpu-vm describe gpt2', code=1, error='ERROR: NOT_FOUND: no\n')
    cluster.answer('queued-resources describe', '{"state": {"state": "WAITING_FOR_RESOURCES"}}')
    launch('tpu', 'delete', 'gpt2', *PLACE)
    assert made.commands()[-1].startswith('compute tpus queued-resources delete gpt2')
    assert 'queued, WAITING_FOR_RESOURCES' in launch('tpu', 'status', 'gpt2', *PLACE)[1]


def test_status_lists_what_costs(launch, cluster):
    node = Pod(cluster, 4, schedulingConfig={'spot': True}).node
    cluster.answer('tpu-vm list', json.dumps([node]))
    waiting = {'name': 'projects/p/locations/z/queuedResources/t5', 'state': {'state': 'ACCEPTED'}}
    cluster.answer('queued-resources list', json.dumps([waiting]))
    code, out, err = launch('tpu', 'status', *PLACE)
    assert code == 0, err
    assert 'gpt2: v5litepod-16, spot, 4 hosts, us-west4-a, READY, for 2.0 h' in out
    assert 't5: queued, ACCEPTED' in out
    assert '$' not in out
    assert 'OVERDUE' not in out
    then = (datetime.now(UTC) - timedelta(hours=9)).isoformat()
    cluster.answer('tpu-vm list', json.dumps([node | {'createTime': then}]))
    assert 'gpt2 IS OVERDUE' in launch('tpu', 'status', *PLACE)[1]
    cluster.answer('list', '[]')
    assert 'no pods in us-west4-a of my-project' in launch('tpu', 'status', *PLACE)[1]


def test_a_dry_run_prints_all_and_runs_nothing(launch, cluster, tmp_path):
    kind = ['--type=v5litepod-16', '--delete_after=8h', '--spot']
    for action, flags, has in (
        ('create', kind, 'gcloud compute tpus queued-resources create gpt2'),
        ('setup', [], 'gcloud compute tpus tpu-vm scp'),
        ('stage', ['--corpus=gs://bucket/c'], 'gcloud storage rsync --recursive gs://bucket/c'),
        ('stage', ['--corpus=cache/c'], '--recurse'),
        ('run', ['--delete_when_done', *TRAINING], 'supervisor.sh start'),
        ('logs', [], 'supervisor.sh follow'),
        ('status', [], 'gcloud compute tpus tpu-vm describe gpt2'),
        ('stop', [], 'gcloud compute tpus tpu-vm stop gpt2'),
        ('delete', [], 'gcloud compute tpus tpu-vm delete gpt2'),
    ):
        code, out, err = launch('tpu', action, 'gpt2', '--dry_run', *PLACE, *flags, PATH='')
        assert code == 0, (action, err)
        assert has in out, (action, out)
    assert 'launch-first-start' in launch('tpu', 'create', 'gpt2', '--dry_run', *kind, *PLACE)[1]
    assert launch('tpu', 'status', '--dry_run', *PLACE, PATH='')[0] == 0
    assert cluster.calls() == []


def test_what_is_wrong_is_said_in_one_line(refused, cluster, absent, tmp_path):
    create = ['create', 'gpt2', *PLACE]
    kind = '--type=v5litepod-16'
    cases = [
        ([*PLACE], 'say what to do: one of create'),
        (['creat', *PLACE], 'did you mean create?'),
        (['create', 'gpt2', kind, PLACE[1]], '--zone is missing'),
        (['create', 'gpt2', kind, PLACE[0]], '--project is missing'),
        (['create', 'gpt2', kind, '--zone=a b', PLACE[1]], "--zone='a b' is no name of a zone"),
        (['create', *PLACE], 'the name of the pod is missing'),
        ([*create, '--keep_running'], '--type is missing'),
        ([*create, '--keep_running', '--type=v5e-16'], 'did you mean v5litepod-16?'),
        ([*create, kind], 'nothing says what deletes the pod'),
        ([*create, kind, '--keep_running', '--delete_after=8h'], 'more than one flag says what'),
        ([*create, kind, '--delete_after=soon'], "--delete_after='soon' is no duration"),
        ([*create, kind, '--spot', '--max_run_duration=8h'], 'is not --spot: --delete_after'),
        ([*create, kind, '--max_run_duration=8d'], 'which Google gives for at most 7d'),
        ([*create, '--type=v5p-8', '--max_run_duration=8h'], 'and v5litepod or v6e: give --del'),
        ([*create, *TRAINING], 'create takes no command behind --'),
        (['setup', 'gpt2', *PLACE], "there is no pod 'gpt2' in us-west4-a of my-project"),
        (['run', 'gpt2', *PLACE, *TRAINING], "there is no pod 'gpt2'"),
        (['run', 'gpt2', *PLACE], 'what is to run is missing'),
        (['run', 'gpt2', *PLACE, '--pause=-1', *TRAINING], '--pause=-1 must be at least 0'),
        (['logs', 'gpt2', *PLACE], "there is no pod 'gpt2'"),
        (['status', 'gpt2', *PLACE], "there is no pod 'gpt2'"),
        (['delete', 'gpt2', *PLACE], "there is no pod 'gpt2'"),
        (['stage', 'gpt2', *PLACE], '--corpus is missing'),
        (['delete', 'gpt2', 'gpt3', *PLACE], "unknown argument 'gpt3'"),
    ]
    refused('tpu', cases)
    cluster.answer('queued-resources describe', '{"state": {"state": "ACCEPTED"}}')
    refused('tpu', [([*create, kind, '--keep_running'], 'is there already (ACCEPTED)')])
    refused('tpu', [(['setup', 'gpt2', *PLACE], "'gpt2' is queued (ACCEPTED)")])
    Pod(cluster, 2, labels={})
    refused('tpu', [([*create, kind, '--keep_running'], 'is there already (READY)')])
    refused('tpu', [(['run', 'gpt2', *PLACE, *TRAINING], "nothing deletes the pod 'gpt2'")])
    refused('tpu', [
        (['stop', 'gpt2', *PLACE], "Google stops no pod of several hosts, and 'gpt2' has 2"),
        (['logs', 'gpt2', *PLACE, '--worker=2'], "'gpt2' has the workers 0 to 1"),
        (['logs', 'gpt2', *PLACE, '--worker=-1'], '--worker=-1'),
    ])  # fmt: skip
    keep = ['run', 'gpt2', *PLACE, '--keep_running']
    local = [*TRAINING[:-1], '--workdir=runs/gpt2']
    refused('tpu', [([*keep, *local], '--workdir=runs/gpt2 is a folder of each of the 2 hosts')])
    refused('tpu', [([*keep, *TRAINING], "the project is not on 'gpt2' yet")])
    refused('tpu', [(['setup', 'gpt2', *PLACE], 'is no git checkout')], folder=tmp_path)
    refused('tpu', [(['stage', 'gpt2', *PLACE, f'--corpus={tmp_path}'], 'no finished corpus')])
    made = Pod(cluster, 2)
    cluster.answer('tpu-vm describe gpt2', code=1, error='ERROR: denied\n')
    cluster.answer('tpu-vm describe gpt2', json.dumps(made.node), times=1)
    refused('tpu', [(['setup', 'gpt2', *PLACE], 'has no rights to TPUs')])
    Pod(cluster, 2, state='CREATING')
    refused('tpu', [(['setup', 'gpt2', *PLACE], "'gpt2' is CREATING, and not READY")])
    cluster.answer('describe', code=1, error='ERROR: (x) PERMISSION_DENIED: no right\nmore\n')
    refused('tpu', [([*create, kind, '--keep_running'], 'PERMISSION_DENIED: no right')])
    refused('tpu', [([*create, kind, '--keep_running'], "'gcloud' is not on PATH")], PATH='')
