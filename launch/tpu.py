"""The life of a pod of TPU VMs, with gcloud: from its creation to its end.

    python -m launch.tpu create gpt2 --type=v5litepod-16 --delete_after=8h
    python -m launch.tpu setup gpt2
    python -m launch.tpu stage gpt2 --corpus=cache/wikipedia-excerpt-0123456789
    python -m launch.tpu run gpt2 --delete_when_done \\
        -- pretrain.train --config=configs/gpt.py:gpt2_124m --workdir=gs://BUCKET/gpt2
    python -m launch.tpu logs|status|stop|delete gpt2

Each with --zone and --project. A pod costs money until it is deleted, so nothing here leaves one
running unless a flag says so. --dry_run prints the commands.
"""

import json
import os
import sys
import tempfile
from pathlib import Path

from absl import flags

from launch import accelerators, commands, tpu_hosts, tpu_pod
from pretrain.errors import UserError

ZONE = flags.DEFINE_string('zone', os.environ.get('CLOUDSDK_COMPUTE_ZONE'), 'Of the pod.')
PROJECT = flags.DEFINE_string('project', os.environ.get('CLOUDSDK_CORE_PROJECT'), 'That pays.')
INTERNAL_IP = flags.DEFINE_bool('internal_ip', False, 'Reach workers inside their network.')
TYPE = flags.DEFINE_string('type', None, 'create: accelerator type, v5litepod-16.')
RUNTIME = flags.DEFINE_string('runtime', None, "create: image; default: the type's.")
SPOT = flags.DEFINE_bool('spot', False, 'create: may be taken away, and is queued for.')
QUEUED = flags.DEFINE_bool('queued', False, 'create: wait in the queue for it.')
DELETE_AFTER = flags.DEFINE_string(
    'delete_after', None, 'create: the pod deletes itself so long after its first start: 8h.'
)
MAX_RUN_DURATION = flags.DEFINE_string(
    'max_run_duration', None, 'create: Google deletes it after so long (flex-start): 8h.'
)
KEEP_RUNNING = flags.DEFINE_bool('keep_running', False, 'Nothing is to delete the pod.')
SERVICE_ACCOUNT = flags.DEFINE_string('service_account', None, 'create: that the workers act as.')
EXTRA = flags.DEFINE_string('extra', '[tpu,gcs]', 'setup: extras of the project to install.')
CORPUS = flags.DEFINE_string('corpus', None, 'stage: folder of a corpus, here or on gs://.')
TO = flags.DEFINE_string(
    'to', f'{tpu_pod.FOLDER}/project/cache', 'stage: folder on each worker, from its home.'
)
DELETE_WHEN_DONE = flags.DEFINE_bool(
    'delete_when_done', False, 'run: delete the pod when the run has ended, well or not.'
)
RESTARTS = flags.DEFINE_integer('restarts', 20, 'run: times that a worker starts again a crash.')
PAUSE = flags.DEFINE_integer('pause', 30, 'run: seconds before each of them.')
SHARED = flags.DEFINE_bool('shared_workdir', False, 'run: all workers mount --workdir.')
RUN_ONLY = flags.DEFINE_bool('run_only', False, 'stop: end the run, and let the pod run on.')
WORKER = flags.DEFINE_integer('worker', 0, 'logs: of which worker.', lower_bound=0)
DRY_RUN = flags.DEFINE_bool('dry_run', False, 'Print what would be run.')
# Of flex-start: cloud.google.com/tpu/docs/request-using-flex-start, read 2026-11-23.
LONGEST = 7 * 86400
FLEXIBLE = ('v5litepod', 'v6e')
SUBCOMMANDS = ('create', 'setup', 'stage', 'run', 'logs', 'status', 'stop', 'delete')


def main(argv, training):
    """Does what the first word says, to the pod that the second names."""
    action = commands.subcommand(argv, SUBCOMMANDS)
    commands.no_more(argv, 3)
    tpu_pod.check_place(ZONE.value, PROJECT.value)
    if training and action != 'run':
        raise UserError(f'{action} takes no command behind --')
    programs = commands.Programs(DRY_RUN.value)
    if action == 'status' and len(argv) < 3:
        list_all(programs)
        return
    name = commands.check_name('the name of the pod', argv[2] if len(argv) > 2 else '')
    pod = tpu_pod.Pod(name, ZONE.value, PROJECT.value, INTERNAL_IP.value)
    try:
        if action == 'run':
            run(programs, pod, commands.parse(training))
        else:
            {
                'create': create, 'setup': setup, 'stage': stage, 'logs': logs, 'status': status,
                'stop': stop, 'delete': delete,
            }[action](programs, pod)  # fmt: skip
    except KeyboardInterrupt:
        print(
            f'\ninterrupted here, which ends nothing there: the pod {name!r} may be running, and '
            f'costs until\n    {pod.launcher("delete")}\ndeletes it; '
            f'{pod.launcher("logs")} follows its run',
            file=sys.stderr,
        )
        raise


def create(programs, pod):
    """Makes a pod that something will delete."""
    if not TYPE.value:
        raise UserError('--type is missing: the accelerator type, for example v5litepod-16')
    kind = accelerators.tpu(TYPE.value)
    ends = [f for f in (DELETE_AFTER, MAX_RUN_DURATION, KEEP_RUNNING) if f.value]
    if len(ends) != 1:
        raise UserError(
            f'{"nothing" if not ends else "more than one flag"} says what deletes the pod, which '
            'costs until then: give one of --delete_after=8h, --max_run_duration=8h, --keep_running'
        )
    if MAX_RUN_DURATION.value and SPOT.value:
        raise UserError('--max_run_duration is for flex-start, which is not --spot: --delete_after')
    queued = SPOT.value or QUEUED.value or bool(MAX_RUN_DURATION.value)
    ending = tpu_pod.KEPT
    if not KEEP_RUNNING.value:
        seconds = tpu_pod.seconds_of(f'--{ends[0].name}', ends[0].value)
        if MAX_RUN_DURATION.value and (seconds > LONGEST or not kind.name.startswith(FLEXIBLE)):
            raise UserError(
                f'--max_run_duration={MAX_RUN_DURATION.value} is for flex-start, which Google '
                f'gives for at most 7d and {" or ".join(FLEXIBLE)}: give --delete_after'
            )
        ending = f'{ends[0].name.replace("_", "-")}-{ends[0].value}'
    found = tpu_pod.look_up(programs, pod)
    waiting = found is None and tpu_pod.look_up_queued(programs, pod)
    if found or waiting:
        raise UserError(
            f'a pod {pod.name!r} is there already ({found.state if found else waiting}): '
            f'{pod.launcher("delete")} deletes it; or give another name'
        )
    options = [
        f'--accelerator-type={kind.name}',
        f'--labels={tpu_pod.LABEL}={ending}',
        f'--scopes={tpu_pod.SCOPE}',
    ]
    if SERVICE_ACCOUNT.value:
        options.append(f'--service-account={SERVICE_ACCOUNT.value}')
    runtime = RUNTIME.value or kind.runtime
    with tempfile.TemporaryDirectory() as folder:
        if DELETE_AFTER.value:
            path = Path(folder) / 'delete-after.sh'
            path.write_text(tpu_pod.delete_after(pod, seconds, queued))
            if DRY_RUN.value:
                print(f'# {path}\n{path.read_text()}')
            options.append(f'--metadata-from-file=startup-script={path}')
        if queued:
            options += [f'--node-id={pod.name}', f'--runtime-version={runtime}']
            options += ['--spot'] if SPOT.value else []
            words = 'compute tpus queued-resources create'
            if MAX_RUN_DURATION.value:
                words = f'alpha {words}'
                options.append('--provisioning-model=flex-start')
                options.append(f'--max-run-duration={seconds}s')
        else:
            options.append(f'--version={runtime}')
            words = 'compute tpus tpu-vm create'
        programs.do(*pod.gcloud(words, *options))
    print(f'{kind.name}: {kind.chips} chips, {kind.hosts} hosts; what ends it: {ending}')
    if queued:
        print(f'it is queued for: {pod.launcher("status")} shows when it is READY')
    print(f'next: {pod.launcher("setup")}\nthe end: {pod.launcher("delete")}')


def setup(programs, pod):
    """Brings the working tree to all workers, and installs it there."""
    found = tpu_pod.ready(programs, pod)
    if found and found.end.startswith('delete-after'):
        tpu_hosts.check_rights(programs, pod)
    tpu_hosts.setup(programs, pod, EXTRA.value, found.hosts if found else None)


def stage(programs, pod):
    """Brings a corpus to the disk of every worker."""
    if not CORPUS.value:
        raise UserError('--corpus is missing: the folder of a prepared corpus, here or on gs://')
    found = tpu_pod.ready(programs, pod)
    tpu_hosts.stage(programs, pod, CORPUS.value, TO.value, found.hosts if found else None)


def run(programs, pod, training):
    """Begins a run on all workers, or comes back to one, and follows its log."""
    for flag, least in ((RESTARTS, 0), (PAUSE, 0)):
        if flag.value < least:
            raise UserError(f'--{flag.name}={flag.value} must be at least {least}')
    found = tpu_pod.ready(programs, pod)
    ending = found.end if found else tpu_pod.KEPT
    if ending == tpu_pod.KEPT and not DELETE_WHEN_DONE.value and not KEEP_RUNNING.value:
        raise UserError(
            f'nothing deletes the pod {pod.name!r}, which costs after the run as well: '
            'give --delete_when_done, or --keep_running'
        )
    # A dry run does not know, and takes the pod for a large one.
    hosts = found.hosts if found else accelerators.tpu(TYPE.value).hosts if TYPE.value else 2
    commands.check_processes(training, hosts)
    commands.check_workdir(training, hosts, SHARED.value)
    end = ''
    if DELETE_WHEN_DONE.value:
        tpu_hosts.check_rights(programs, pod)
        end = tpu_pod.at_end(pod, bool(found and found.queued), training.workdir)
    code = tpu_hosts.run(programs, pod, training, hosts, RESTARTS.value, PAUSE.value, end)
    if DELETE_WHEN_DONE.value and code is not None:
        # It deletes itself; to do it from here as well costs nothing if that has not worked.
        if tpu_pod.look_up(programs, pod):
            programs.do(*pod.delete(bool(found and found.queued)))
        print(f'the pod {pod.name!r} is being deleted')
    elif code is not None:
        print(f'the pod {pod.name!r} runs on ({ending}): {pod.launcher("delete")} deletes it')
    elif not programs.dry_run:
        print(
            f'the run has not ended on all workers: {pod.launcher("logs")} follows it again; '
            f'the pod costs until {pod.launcher("delete")}'
        )
        code = 1  # a connection that broke, say: nobody may take the run for done
    if code:
        sys.exit(code)


def logs(programs, pod):
    """Follows the log of one worker."""
    found = tpu_pod.ready(programs, pod)
    if found and WORKER.value >= found.hosts:
        raise UserError(
            f'--worker={WORKER.value}: the pod {pod.name!r} has the workers 0 to {found.hosts - 1}'
        )
    tpu_hosts.follow(programs, pod, WORKER.value)


def status(programs, pod):
    """What there is of one pod, and what its run does."""
    found = tpu_pod.look_up(programs, pod)
    if found:
        show({pod.name: found})
        if found.state == 'READY':
            print(f'run: {tpu_hosts.describe(tpu_pod.ask_state(programs, pod))}')
        print(f'no prices here; it costs until {pod.launcher("delete")}')
        return
    queued = tpu_pod.look_up_queued(programs, pod)
    if queued is None and not programs.dry_run:
        raise UserError(f'there is no pod {pod.name!r} in {pod.zone} of {pod.project}')
    print(f'{pod.name}: queued, {queued or "state not asked"}')


def list_all(programs):
    """Lists the pods of the zone, and what is queued for."""
    place = [f'--zone={ZONE.value}', f'--project={PROJECT.value}', '--format=json']
    nodes = programs.ask('gcloud', 'compute', 'tpus', 'tpu-vm', 'list', *place)
    queue = programs.ask('gcloud', 'compute', 'tpus', 'queued-resources', 'list', *place)
    if programs.dry_run:
        return
    named = lambda text: {e['name'].rpartition('/')[2]: e for e in json.loads(text)}  # noqa: E731
    found = {name: tpu_pod.facts(node) for name, node in named(nodes).items()}
    waiting = {name: e.get('state', {}).get('state', '?') for name, e in named(queue).items()}
    show(found)
    for name, state in waiting.items():
        if name not in found:
            print(f'{name}: queued, {state}')
    if not found and not waiting:
        print(f'no pods in {ZONE.value} of {PROJECT.value}')
    else:
        print('no prices here; each costs until python -m launch.tpu delete NAME')


def show(found):
    """Prints what the cost of each pod depends on."""
    for name, facts in found.items():
        seconds = tpu_pod.age(facts.created)
        age = '?' if seconds is None else f'{seconds / 3600:.1f} h'
        print(
            f'{name}: {facts.type}{", spot" if facts.spot else ""}, {facts.hosts} hosts, '
            f'{ZONE.value}, {facts.state}, for {age}, what ends it: {facts.end}'
        )
        if tpu_pod.overdue(facts):
            print(f'{name} IS OVERDUE: nothing has deleted it, delete it yourself')


def stop(programs, pod):
    """Stops the pod, or with --run_only the run on it, which saves."""
    if RUN_ONLY.value:
        tpu_pod.ready(programs, pod)
        tpu_hosts.stop(programs, pod)
        print(f'the pod {pod.name!r} runs on: {pod.launcher("delete")} deletes it')
        return
    found = tpu_pod.ready(programs, pod)
    # cloud.google.com/tpu/docs/reference/rest/v1/projects.locations.nodes/stop, read 2026-11-23
    if found and found.hosts > 1:
        raise UserError(
            f'Google stops no pod of several hosts, and {pod.name!r} has {found.hosts}: '
            f'{pod.launcher("delete")} deletes it, --run_only stops the run alone'
        )
    programs.do(*pod.gcloud('compute tpus tpu-vm stop'))
    print(f'stopped, and still there, disk and all: {pod.launcher("delete")} deletes it')


def delete(programs, pod):
    """Deletes the pod, and the queued resource that it came from."""
    found = tpu_pod.look_up(programs, pod)
    queued = found.queued if found else bool(tpu_pod.look_up_queued(programs, pod))
    if not found and not queued and not programs.dry_run:
        raise UserError(f'there is no pod {pod.name!r} in {pod.zone} of {pod.project}')
    programs.do(*pod.delete(queued))
    print(f'{pod.name!r} is being deleted: {pod.launcher("status")} says when it is gone')


if __name__ == '__main__':
    commands.run(main)
