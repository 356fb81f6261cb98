"""Runs a command on Google Kubernetes Engine, on node pools of TPUs or GPUs.

    python -m launch.gke run gpt2 --image=REGISTRY/pretraining:1 --topology=4x4 \\
        --accelerator=tpu-v5-lite-podslice \\
        -- pretrain.train --config=configs/gpt.py:gpt2_124m --workdir=gs://BUCKET/gpt2
    python -m launch.gke status|logs|delete gpt2

`run` writes a JobSet and gives it to kubectl. The cluster needs the JobSet controller, kubectl the
cluster's credentials. --dry_run prints the manifest and the commands.
"""

import posixpath
from pathlib import PurePosixPath

import yaml
from absl import flags

from launch import accelerators, commands, jobset
from pretrain.errors import UserError

IMAGE = flags.DEFINE_string('image', None, 'Container image that holds the project.')
ACCELERATOR = flags.DEFINE_string(
    'accelerator', None, 'As GKE names it: tpu-v5-lite-podslice, nvidia-h100-80gb.'
)
TOPOLOGY = flags.DEFINE_string('topology', None, 'Of one TPU slice: 4x4, 4x4x4.')
SLICES = flags.DEFINE_integer('slices', 1, 'Number of TPU slices: node pools of that topology.')
CHIPS = flags.DEFINE_integer('chips_per_node', 0, 'Of the machine type; 0: 4, or 1 for one chip.')
NODES = flags.DEFINE_integer('nodes', 1, 'Machines with GPUs.')
GPUS = flags.DEFINE_integer('gpus_per_node', 8, 'GPUs of each.')
SPOT = flags.DEFINE_bool('spot', False, 'On spot machines, which end 15 s after a warning.')
RESTARTS = flags.DEFINE_integer('restarts', 100, 'Times that all pods are started again.')
SAVE_SECONDS = flags.DEFINE_integer('save_seconds', 120, 'For a pod that must go, to save.')
VOLUME = flags.DEFINE_multi_string(
    'shared_volume', [], 'CLAIM:/path, a volume claim that all pods mount there.'
)
SHARED = flags.DEFINE_bool('shared_workdir', False, 'The image itself mounts a shared --workdir.')
SERVICE_ACCOUNT = flags.DEFINE_string('service_account', '', 'Of Kubernetes; may use the bucket.')
NAMESPACE = flags.DEFINE_string('namespace', None, "Default: kubectl's.")
CONTEXT = flags.DEFINE_string('context', None, "Cluster, as kubectl names it; default: kubectl's.")
WORKER = flags.DEFINE_string('worker', '0', 'Whose log; all: of every pod.')
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print what would be run and sent.')
SUBCOMMANDS = ('run', 'status', 'logs', 'delete')


def main(argv, training):
    """Does what the first word says, to the run that the second names."""
    action = commands.subcommand(argv, SUBCOMMANDS)
    commands.no_more(argv, 3)
    name = commands.check_name('the name of the run', argv[2] if len(argv) > 2 else '')
    programs = commands.Programs(DRY_RUN.value)
    if action == 'run':
        run(programs, name, training)
        return
    if training:
        raise UserError(f'{action} takes no command behind --')
    check_exists(programs, name)
    if action == 'status':
        programs.do(*kubectl('get', 'jobset', name))
        programs.do(*kubectl('get', 'pods', pods_of(name), '--output=wide'))
    elif action == 'logs':
        logs(programs, name)
    else:
        programs.do(*kubectl('delete', 'jobset', name))


def run(programs, name, words):
    """Makes the manifest, and applies it where no run has its name."""
    training = commands.parse(words)
    text = yaml.safe_dump(jobset.manifest(asked(name, training)), sort_keys=False, width=100)
    if programs.ask(*kubectl('get', 'jobset', name, '--ignore-not-found', '--output=name')):
        raise UserError(
            f'a run {name!r} is there already: python -m launch.gke logs {name} follows it, '
            f'python -m launch.gke delete {name} ends it; or give another name'
        )
    programs.do(*kubectl('apply', '--filename=-'), given=text)
    for action, does in (('logs', 'follows it'), ('status', 'shows it'), ('delete', 'ends it')):
        print(f'{does}: python -m launch.gke {action} {name}{where()}')


def asked(name, training):
    """The jobset.Run that the flags ask for.

    Raises:
        UserError: a flag is missing or wrong.
    """
    if not IMAGE.value:
        raise UserError('--image is missing: the container image that holds the project')
    if not ACCELERATOR.value:
        raise UserError('--accelerator is missing: for example tpu-v5-lite-podslice')
    for flag, least in ((SLICES, 1), (CHIPS, 0), (RESTARTS, 0), (SAVE_SECONDS, 1)):
        if flag.value < least:
            raise UserError(f'--{flag.name}={flag.value} must be at least {least}')
    on_gpus = ACCELERATOR.value.startswith('nvidia')
    for flag in (TOPOLOGY, CHIPS) if on_gpus else (NODES, GPUS):
        if flag.present:
            takes = '--nodes and --gpus_per_node' if on_gpus else '--topology and --slices'
            raise UserError(
                f'--{flag.name}={flag.value} is not for {ACCELERATOR.value}, which takes {takes}'
            )
    if on_gpus:
        pool = accelerators.gpu_pool(ACCELERATOR.value, NODES.value, GPUS.value)
    else:
        if not TOPOLOGY.value:
            raise UserError('--topology is missing: the chips along each axis, for example 4x4')
        pool = accelerators.tpu_pool(ACCELERATOR.value, TOPOLOGY.value, CHIPS.value or None)
    made = jobset.Run(
        name, training, pool, SLICES.value, IMAGE.value, RESTARTS.value, SAVE_SECONDS.value,
        SPOT.value, SERVICE_ACCOUNT.value, volumes(),
    )  # fmt: skip
    commands.check_processes(training, made.pods)
    check_workdir(training, made.volumes)
    return made


def volumes():
    """{claim: path} of --shared_volume.

    Raises:
        UserError: one is not CLAIM:/path.
    """
    mounted = {}
    for text in VOLUME.value:
        claim, _, path = text.partition(':')
        if not commands.NAME.fullmatch(claim) or not path.startswith('/'):
            raise UserError(f'--shared_volume={text!r} is not CLAIM:/path: for example runs:/runs')
        if claim in mounted or path in mounted.values():
            raise UserError(f'--shared_volume={text!r}: its claim or its path is given twice')
        mounted[claim] = path
    return mounted


def check_workdir(training, mounted):
    """Refuses a folder that ends with its pod: even one pod could not resume from it."""
    workdir = training.workdir
    if workdir is None or '://' in workdir or SHARED.value:
        return
    inside = PurePosixPath(posixpath.normpath(workdir))
    if not any(inside.is_relative_to(path) for path in mounted.values()):
        raise UserError(
            f'--workdir={workdir} is a folder inside a pod, and is lost with it: give one on '
            'gs://, one below the path of a --shared_volume=CLAIM:/path, or --shared_workdir'
        )


def check_exists(programs, name):
    """Raises UserError where there is no such run."""
    found = programs.ask(*kubectl('get', 'jobset', name, '--ignore-not-found', '--output=name'))
    if found == '':
        raise UserError(f'there is no run {name!r}{where()}: kubectl get jobset lists them')


def logs(programs, name):
    """Follows the log of a pod, or of all."""
    only = '' if WORKER.value == 'all' else f',{jobset.SLICE_LABEL}=0,{jobset.POD_LABEL}='
    if only and not WORKER.value.isdecimal():
        raise UserError(f'--worker={WORKER.value!r} is neither a number nor all')
    selector = pods_of(name) + (f'{only}{WORKER.value}' if only else '')
    options = ['--follow', '--tail=-1', '--prefix', '--max-log-requests=1000']
    try:
        code = programs.watch(*kubectl('logs', selector, *options))
    except KeyboardInterrupt:
        print(f'\nthe run goes on; python -m launch.gke delete {name}{where()} ends it')
        raise
    if code:
        raise UserError(f'kubectl logs ended with exit code {code}: see above')


def pods_of(name):
    """The flag that selects a run's pods."""
    return f'--selector={jobset.NAME_LABEL}={name}'


def kubectl(*words):
    """A command of kubectl for the cluster and the namespace of the flags."""
    options = (('context', CONTEXT.value), ('namespace', NAMESPACE.value))
    return ('kubectl', *words, *(f'--{name}={value}' for name, value in options if value))


def where():
    """The flags that name the cluster and the namespace, as the user gave them."""
    options = (('context', CONTEXT.value), ('namespace', NAMESPACE.value))
    return ''.join(f' --{name}={value}' for name, value in options if value)


if __name__ == '__main__':
    commands.run(main)
