"""The manifest of a run on GKE: a JobSet with one Job a slice, and in it one pod a machine."""

from typing import NamedTuple

from launch import commands, known_flags
from launch.accelerators import Pool
from pretrain.errors import UserError

JOB = 'slice'  # <name>-slice-<number of the slice>-<number of the machine>.<name> is a pod's host
PORT = 55527
NAME_LABEL = 'jobset.sigs.k8s.io/jobset-name'
SLICE_LABEL = 'jobset.sigs.k8s.io/job-index'
POD_LABEL = 'batch.kubernetes.io/job-completion-index'
# A slice is one node pool: no two Jobs may share one, and none may lie on two.
EXCLUSIVE = {'alpha.jobset.sigs.k8s.io/exclusive-topology': 'cloud.google.com/gke-nodepool'}
SPOT = 'cloud.google.com/gke-spot'


class Run(NamedTuple):
    """What a manifest is made of.

    training: the command. pool, slices: where it runs, and how many of them. image: of the
    container, whose working directory holds the project. restarts: how often all pods are made
    anew after one has ended early. save_seconds: between SIGTERM and SIGKILL. spot: on spot
    machines. service_account: of Kubernetes; '': the namespace's. volumes: {claim: path} of
    volumes that all pods mount.
    """

    name: str
    training: commands.Training
    pool: Pool
    slices: int
    image: str
    restarts: int
    save_seconds: int
    spot: bool = False
    service_account: str = ''
    volumes: dict[str, str] = {}  # noqa: RUF012

    @property
    def pods(self):
        """Number of machines, and of processes."""
        return self.slices * self.pool.nodes

    @property
    def on_tpu(self):
        """Whether it runs on TPUs."""
        return self.pool.resource == 'google.com/tpu'


def manifest(run):
    """The JobSet, checked against the list of fields.

    Args:
        run: Run.

    Returns:
        dict, to be written as YAML.

    Raises:
        UserError: GPUs in several slices.
    """
    if run.slices > 1 and not run.on_tpu:
        raise UserError(f'--slices={run.slices} is for TPUs: more machines with GPUs are --nodes')
    job = {
        'parallelism': run.pool.nodes,
        'completions': run.pool.nodes,
        'completionMode': 'Indexed',
        'backoffLimit': 0,  # one pod less is no run: the JobSet starts all of them again
        'podFailurePolicy': {
            'rules': [{
                'action': 'FailJob',
                'onExitCodes': {
                    'containerName': 'train', 'operator': 'In', 'values': [commands.MISTAKE],
                },
            }],
        },
        'template': {'spec': pod(run)},
    }  # fmt: skip
    mistake = {
        'name': 'mistake',
        'action': 'FailJobSet',
        'onJobFailureReasons': ['PodFailurePolicy'],
    }
    tree = {
        'apiVersion': 'jobset.x-k8s.io/v1alpha2',
        'kind': 'JobSet',
        'metadata': {'name': run.name} | ({'annotations': EXCLUSIVE} if run.on_tpu else {}),
        'spec': {
            'network': {'enableDNSHostnames': True, 'publishNotReadyAddresses': True},
            'failurePolicy': {
                'maxRestarts': run.restarts,
                # Pods that still save must be gone before others read what they write.
                'restartStrategy': 'BlockingRecreate',
                'rules': [mistake],
            },
            'replicatedJobs': [
                {'name': JOB, 'replicas': run.slices, 'template': {'spec': job}},
            ],
        },
    }
    return known_flags.check_manifest(tree)


def pod(run):
    """The spec of each pod."""
    selector = run.pool.labels | ({SPOT: 'true'} if run.spot else {})
    spec = {
        'restartPolicy': 'Never',
        'terminationGracePeriodSeconds': run.save_seconds,
        'nodeSelector': selector,
    }
    if run.spot:
        spec['tolerations'] = [
            {'key': SPOT, 'operator': 'Equal', 'value': 'true', 'effect': 'NoSchedule'}
        ]
    if run.slices > 1:  # slices talk over the machines' own network
        spec |= {'hostNetwork': True, 'dnsPolicy': 'ClusterFirstWithHostNet'}
    if run.service_account:
        spec['serviceAccountName'] = run.service_account
    spec['containers'] = [container(run)]
    if run.volumes:
        spec['volumes'] = [
            {'name': claim, 'persistentVolumeClaim': {'claimName': claim}} for claim in run.volumes
        ]
    return spec


def container(run):
    """The container that trains.

    On TPUs GKE itself tells each process its number and its peers (TPU_WORKER_ID,
    TPU_WORKER_HOSTNAMES, MEGASCALE_*), and jax looks there. On GPUs jax would ask the cluster's
    API, for which the image needs one more package and the pod more rights; what it would be told
    is known here, so the flags say it.
    """
    extra, env = [], [{'name': 'JAX_PLATFORMS', 'value': 'tpu,cpu' if run.on_tpu else 'cuda,cpu'}]
    if run.pods > 1 and run.on_tpu:
        extra = ['--distributed']
    elif run.pods > 1:
        extra = [
            f'--coordinator={run.name}-{JOB}-0-0.{run.name}:{PORT}',
            f'--processes={run.pods}',
            '--process=$(PROCESS)',
        ]
        number = {'fieldRef': {'fieldPath': f"metadata.annotations['{POD_LABEL}']"}}
        env.append({'name': 'PROCESS', 'valueFrom': number})
    # Kubernetes would take $(...) for one of its variables.
    given = run.training._replace(
        arguments=tuple(a.replace('$(', '$$(') for a in run.training.arguments)
    )
    made = {
        'name': 'train',
        'image': run.image,
        'command': given.command(extra=extra),
        'env': env,
        'resources': {'limits': {run.pool.resource: run.pool.per_node}},
    }
    if run.volumes:
        made['volumeMounts'] = [
            {'name': claim, 'mountPath': path} for claim, path in run.volumes.items()
        ]
    return made
