"""The manifest's numbers, against figures by hand."""

import pytest

from launch import accelerators, commands, jobset
from pretrain.errors import UserError

ODD = '--config.data.source=text:it\'s "a" $(HOME)'
TRAINING = commands.parse(['pretrain.train', '--config=a.py', '--workdir=gs://b/x', ODD])


def manifest(pool, slices=1, **options):
    """(metadata, spec, spec of the Job, spec of the pod, container)."""
    run = jobset.Run('gpt2', TRAINING, pool, slices, 'registry/image:1', 7, 90, **options)
    tree = jobset.manifest(run)
    assert (tree['apiVersion'], tree['kind']) == ('jobset.x-k8s.io/v1alpha2', 'JobSet')
    (group,) = tree['spec']['replicatedJobs']
    job = group['template']['spec']
    pod = job['template']['spec']
    (container,) = pod['containers']
    assert group['replicas'] == slices
    assert job['completions'] == job['parallelism']
    assert job['completionMode'] == 'Indexed'
    assert job['backoffLimit'] == 0
    assert pod['restartPolicy'] == 'Never'
    assert pod['terminationGracePeriodSeconds'] == 90
    assert tree['spec']['failurePolicy']['maxRestarts'] == 7
    return tree['metadata'], tree['spec'], job, pod, container


@pytest.mark.parametrize(
    ('accelerator', 'topology', 'slices', 'pods_of_slice', 'chips_of_pod'),
    [
        ('tpu-v5-lite-podslice', '4x4', 1, 4, 4),
        ('tpu-v5-lite-podslice', '16x16', 1, 64, 4),
        ('tpu-v5p-slice', '4x4x4', 1, 16, 4),
        ('tpu-v5-lite-podslice', '4x4', 2, 4, 4),
    ],
)
def test_slices_of_tpus(accelerator, topology, slices, pods_of_slice, chips_of_pod):
    pool = accelerators.tpu_pool(accelerator, topology)
    metadata, _, job, pod, container = manifest(pool, slices)
    assert job['parallelism'] == pods_of_slice
    assert container['resources'] == {'limits': {'google.com/tpu': chips_of_pod}}
    assert pod['nodeSelector'] == {
        'cloud.google.com/gke-tpu-accelerator': accelerator,
        'cloud.google.com/gke-tpu-topology': topology,
    }
    assert metadata['annotations'] == {
        'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'
    }
    assert container['command'][:4] == ['python', '-m', 'pretrain.train', '--distributed']
    assert container['command'][-1] == ODD.replace('$(', '$$(')
    assert {'name': 'JAX_PLATFORMS', 'value': 'tpu,cpu'} in container['env']
    assert pod.get('hostNetwork', False) == (slices > 1)


def test_a_pool_of_gpus():
    pool = accelerators.gpu_pool('nvidia-h100-80gb', 2, 8)
    metadata, _, job, pod, container = manifest(pool)
    assert job['parallelism'] == 2
    assert container['resources'] == {'limits': {'nvidia.com/gpu': 8}}
    assert pod['nodeSelector'] == {'cloud.google.com/gke-accelerator': 'nvidia-h100-80gb'}
    assert 'annotations' not in metadata
    # jobset gives the first pod of the first Job the name <set>-<job>-0-0.<set>.
    assert container['command'][3:6] == [
        '--coordinator=gpt2-slice-0-0.gpt2:55527', '--processes=2', '--process=$(PROCESS)',
    ]  # fmt: skip
    (number,) = [e for e in container['env'] if e['name'] == 'PROCESS']
    assert 'job-completion-index' in number['valueFrom']['fieldRef']['fieldPath']
    with pytest.raises(UserError, match='--slices=2 is for TPUs'):
        manifest(pool, 2)


def test_one_machine_joins_no_others():
    for pool in (
        accelerators.tpu_pool('tpu-v6e-slice', '2x2'), accelerators.gpu_pool('nvidia-l4', 1, 1)
    ):  # fmt: skip
        command = manifest(pool)[-1]['command']
        assert command[:4] == ['python', '-m', 'pretrain.train', '--config=a.py']


def test_a_mistake_ends_the_run_and_all_else_begins_anew():
    _, spec, job, _, _ = manifest(accelerators.tpu_pool('tpu-v6e-slice', '4x4'))
    (rule,) = job['podFailurePolicy']['rules']
    assert rule['onExitCodes']['values'] == [2]
    assert rule['action'] == 'FailJob'
    (rule,) = spec['failurePolicy']['rules']
    assert (rule['action'], rule['onJobFailureReasons']) == ('FailJobSet', ['PodFailurePolicy'])
    assert spec['failurePolicy']['restartStrategy'] == 'BlockingRecreate'


def test_spot_accounts_and_volumes():
    pool = accelerators.tpu_pool('tpu-v6e-slice', '4x4')
    pod = manifest(pool, spot=True, service_account='trainer', volumes={'runs': '/runs'})[3]
    assert pod['nodeSelector']['cloud.google.com/gke-spot'] == 'true'
    assert pod['tolerations'][0]['key'] == 'cloud.google.com/gke-spot'
    assert pod['serviceAccountName'] == 'trainer'
    assert pod['volumes'] == [{'name': 'runs', 'persistentVolumeClaim': {'claimName': 'runs'}}]
    assert pod['containers'][0]['volumeMounts'] == [{'name': 'runs', 'mountPath': '/runs'}]
