"""What gcloud's answers mean, and the scripts that end a pod."""

import subprocess
from datetime import UTC, datetime, timedelta

import pytest

from launch import tpu_pod
from pretrain.errors import UserError

POD = tpu_pod.Pod('gpt2', 'us-west4-a', 'my-project')
PLACE = '--zone=us-west4-a --project=my-project'


def test_what_gcloud_describes():
    node = {
        'acceleratorType': 'v5litepod-16', 'state': 'READY', 'networkEndpoints': [{}] * 4,
        'createTime': '2026-11-23T10:00:00.123456Z', 'schedulingConfig': {'spot': True},
        'queuedResource': 'projects/p/locations/z/queuedResources/gpt2',
        'labels': {'launch-end': 'delete-after-8h'},
    }  # fmt: skip
    facts = tpu_pod.facts(node)
    assert facts == (
        'v5litepod-16', 'READY', 4, node['createTime'], True, True, 'delete-after-8h'
    )  # fmt: skip
    assert tpu_pod.facts({}) == ('?', '?', 1, '', False, False, 'kept')


def test_ages_and_durations():
    then = datetime.now(UTC) - timedelta(hours=3.5)
    created = then.isoformat().replace('+00:00', 'Z')
    assert tpu_pod.age(created) == pytest.approx(3.5 * 3600, abs=60)
    assert tpu_pod.age('') is None
    for label, late in (
        ('delete-after-2h', True), ('max-run-duration-2h', True), ('delete-after-200m', False),
        ('delete-after-4h', False), ('kept', False), ('unknown', False),
    ):  # fmt: skip
        assert tpu_pod.overdue(tpu_pod.facts({'labels': {'launch-end': label}})) is False
        facts = tpu_pod.facts({'labels': {'launch-end': label}, 'createTime': created})
        assert tpu_pod.overdue(facts) == late, label
    seconds = [tpu_pod.seconds_of('--a', text) for text in ('30s', '90m', '8h', '2d')]
    assert seconds == [30, 5400, 28800, 172800]
    for text in ('8', 'h', '0h', '-1h', '8 h', '1.5h'):
        with pytest.raises(UserError, match='is no duration: for example 8h'):
            tpu_pod.seconds_of('--delete_after', text)


def run(cluster, text, tmp_path, shellcheck, **environment):
    """Runs a script that tpu_pod makes; the gcloud commands that it ran."""
    path = tmp_path / 'script.sh'
    path.write_text(text if text.startswith('#!') else f'#!/bin/bash\n{text}\n')
    shellcheck(path)
    before = len(cluster.calls('gcloud'))
    environment = cluster.environment | {'LAUNCH_STATE': str(tmp_path)} | environment
    # Output through a pipe: it ends when what the script leaves behind has ended too.
    done = subprocess.run(
        ['bash', path], env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stderr
    return [' '.join(call[1]) for call in cluster.calls('gcloud')[before:]]


def wait_for(condition):
    """Waits, at most 10 s."""
    end = datetime.now(UTC) + timedelta(seconds=10)
    while not condition() and datetime.now(UTC) < end:
        pass
    assert condition()


def test_a_pod_deletes_itself_so_long_after_its_first_start(cluster, tmp_path, shellcheck):
    slept = tmp_path / 'slept'
    cluster.program('sleep', f'#!/bin/bash\necho "$1" >> {slept}\n')
    cluster.answer('delete', code=1, times=1)  # the first try fails
    script = tpu_pod.delete_after(POD, 28800, queued=False)
    run(cluster, script, tmp_path, shellcheck, WORKER='2')
    wait_for(lambda: len(cluster.calls('gcloud')) == 2)
    left, pause = (int(line) for line in slept.read_text().split())
    assert 28800 + 120 - 10 < left <= 28800 + 120
    assert pause == 60
    delete = f'compute tpus tpu-vm delete gpt2 {PLACE} --quiet --async'
    assert {' '.join(call[1]) for call in cluster.calls('gcloud')} == {delete}
    # Started again when the time is over, it deletes at once.
    (tmp_path / 'launch-first-start').write_text('1000\n')
    slept.unlink()
    run(cluster, script, tmp_path, shellcheck, WORKER='0')
    wait_for(lambda: len(cluster.calls('gcloud')) == 3)
    assert not slept.exists()


def test_the_end_of_a_run_keeps_the_log_and_deletes_the_pod(cluster, tmp_path, shellcheck):
    text = tpu_pod.at_end(POD, True, "gs://bucket/my run's/")
    first = run(cluster, text, tmp_path, shellcheck, WORKER='0', folder='/home/x')
    copy = "storage cp /home/x/log gs://bucket/my run's/logs/worker-{}.log"
    delete = f'compute tpus queued-resources delete gpt2 {PLACE} --force --quiet --async'
    assert first == [copy.format(0), delete]
    third = run(cluster, text, tmp_path, shellcheck, WORKER='3', folder='/home/x')
    assert third == [copy.format(3)]
    text = tpu_pod.at_end(POD, False, 'runs/local')
    assert len(run(cluster, text, tmp_path, shellcheck, WORKER='0', folder='/home/x')) == 1
