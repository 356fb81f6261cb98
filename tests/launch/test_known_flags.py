"""Commands and manifests are compared with the committed lists."""

import pytest

from launch import known_flags


def test_each_list_says_what_was_read_and_when():
    for name in ('gcloud', 'kubectl', 'slurm', 'jobset', 'accelerators'):
        table = known_flags.table(name)
        assert table['source'], name
        assert table['date'].startswith('20'), name
        assert isinstance(table['unverified'], list), name


def test_a_known_command_passes():
    for command in (
        ['gcloud', 'compute', 'tpus', 'tpu-vm', 'ssh', 'pod', '--worker=0', '--command=ls --x'],
        ['/usr/bin/kubectl', 'get', 'pods', '--selector=a=b'],
        ['sbatch', '--parsable', 'path'],
        ['srun', '--label', '--', '--what-stands-here-is-not-ours'],
        ['scontrol', 'requeue', '7'],
        ['git', '--no-list-of-it'],
    ):
        assert known_flags.check(command) == command


@pytest.mark.parametrize(
    ('command', 'names'),
    [
        ('gcloud compute tpus tpu-vm create pod --max-run-duration=1h', '--max-run-duration'),
        ('gcloud compute tpus tpu-vm frobnicate pod', 'not a known command'),
        ('kubectl logs --flow', '--flow'),
        ('sbatch --requeue-always', '--requeue-always'),
    ],
)
def test_an_unknown_flag_is_stopped(command, names):
    with pytest.raises(known_flags.UnknownFlagError, match=names):
        known_flags.check(command.split())


def test_a_field_that_no_jobset_has_is_stopped():
    known_flags.check_manifest({'metadata': {'name': 'a', 'annotations': {'any/name': 'x'}}})
    for tree, path in (
        ({'metadata': {'nam': 'a'}}, 'metadata.nam'),
        ({'spec': {'replicatedJobs': [{'replica': 2}]}}, r'replicatedJobs\[\].replica'),
        ({'spec': {'failurePolicy': 3}}, 'spec.failurePolicy'),
    ):
        with pytest.raises(known_flags.UnknownFlagError, match=path):
            known_flags.check_manifest(tree)
