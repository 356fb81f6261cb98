"""A pod of TPU VMs as gcloud has it: the commands about it, and what its answers mean."""

import json
import re
import shlex
from datetime import UTC, datetime
from typing import NamedTuple

from launch import known_flags
from pretrain.errors import UserError

# On every worker, from the home folder: the working tree, its Python, the run.
FOLDER = 'pretraining'
IN_PROJECT = f'cd "$HOME"/{FOLDER}/project'
SUPERVISOR = f'bash launch/supervisor.sh {{action}} "$HOME"/{FOLDER}/run'
# The label of a pod that says what ends it.
LABEL = 'launch-end'
KEPT = 'kept'
ABSENT = 'NOT_FOUND'  # in gcloud's error about what is not there
GRACE = 1800  # seconds that a pod may take to start, and to be deleted
SCOPE = 'https://www.googleapis.com/auth/cloud-platform'
# The number of a worker in its pod, which its own metadata server tells.
WORKER_NUMBER = (
    'curl --silent --fail --header "Metadata-Flavor: Google" '
    'http://metadata.google.internal/computeMetadata/v1/instance/attributes/agent-worker-number'
)
DELETE_AFTER = """\
#!/bin/bash
# Written by python -m launch.tpu create --delete_after: runs at each start of each worker, as root.
# Deletes the pod a fixed time after its first start, whoever has forgotten it. The workers take
# turns, a minute apart, so that one that cannot is not the only one that tries.
PATH=$PATH:/snap/bin:/usr/local/bin
first=${{LAUNCH_STATE:-/var/lib}}/launch-first-start
[ -e "$first" ] || date +%s >"$first"
worker=$({worker_number} || echo 0)
left=$(($(cat "$first") + {seconds} + 60 * worker - $(date +%s)))
nohup setsid bash -c '
  if [ "$1" -gt 0 ]; then sleep "$1"; fi
  shift
  until "$@"; do sleep 60; done
' delete "$left" {delete} >"${{LAUNCH_STATE:-/var/log}}/launch-delete-after.log" 2>&1 </dev/null &
"""


class Pod(NamedTuple):
    """Where a pod is. internal_ip: reach it by its addresses inside the network."""

    name: str
    zone: str
    project: str
    internal_ip: bool = False

    def gcloud(self, words, *flags):
        """A command about the pod: gcloud `words` NAME --zone --project flags."""
        return ['gcloud', *words.split(), self.name, *self.place(), *flags]

    def place(self):
        """The flags that say where."""
        return [f'--zone={self.zone}', f'--project={self.project}']

    def reach(self, worker):
        """The flags of ssh and scp that say which worker, and how: without a question."""
        way = ['--internal-ip'] if self.internal_ip else []
        return [f'--worker={worker}', '--quiet', *way]

    def ssh(self, script, worker='all'):
        """The command that runs a line of shell on a worker, or on all."""
        words = 'compute tpus tpu-vm ssh'
        return self.gcloud(words, *self.reach(worker), f'--command={script}')

    def scp(self, path, target, *flags):
        """The command that copies a path to all workers; `target` is seen from their home."""
        words = ['gcloud', 'compute', 'tpus', 'tpu-vm', 'scp', str(path), f'{self.name}:{target}']
        return [*words, *self.place(), *self.reach('all'), *flags]

    def launcher(self, action):
        """A command of this package about the pod, for the user to copy."""
        return (
            f'python -m launch.tpu {action} {self.name} --zone={self.zone} '
            f'--project={self.project}{" --internal_ip" if self.internal_ip else ""}'
        )

    def delete(self, queued):
        """The command that deletes it; queued: it was made by a queued resource."""
        if queued:
            words = 'compute tpus queued-resources delete'
            return self.gcloud(words, '--force', '--quiet', '--async')
        return self.gcloud('compute tpus tpu-vm delete', '--quiet', '--async')


class Facts(NamedTuple):
    """What gcloud says of a pod that is there.

    type: accelerator type. state: READY, CREATING. hosts: number of workers. created: its time.
    queued: made by a queued resource. spot: may be taken away. end: what ends it, KEPT where
    nothing does.
    """

    type: str
    state: str
    hosts: int
    created: str
    queued: bool
    spot: bool
    end: str


def facts(node):
    """The Facts of gcloud's description of a TPU VM."""
    scheduling = node.get('schedulingConfig', {})
    return Facts(
        node.get('acceleratorType', '?'),
        node.get('state', '?'),
        max(1, len(node.get('networkEndpoints', []))),
        node.get('createTime', ''),
        bool(node.get('queuedResource')),
        bool(scheduling.get('spot') or scheduling.get('preemptible')),
        node.get('labels', {}).get(LABEL, KEPT),
    )


def look_up(programs, pod):
    """The Facts of a pod; None where gcloud has none, and in a dry run.

    Raises:
        UserError: gcloud fails for another reason.
    """
    command = pod.gcloud('compute tpus tpu-vm describe', '--format=json')
    text = programs.ask(*command, absent=ABSENT)
    return facts(json.loads(text)) if text else None


def look_up_queued(programs, pod):
    """The state of the queued resource of that name, such as WAITING_FOR_RESOURCES, or None."""
    command = pod.gcloud('compute tpus queued-resources describe', '--format=json')
    text = programs.ask(*command, absent=ABSENT)
    return json.loads(text).get('state', {}).get('state', '?') if text else None


def ready(programs, pod):
    """The Facts of a pod that can be worked on; None in a dry run.

    Raises:
        UserError: it is not there, or not ready.
    """
    found = look_up(programs, pod)
    if found is None and not programs.dry_run:
        queued = look_up_queued(programs, pod)
        if queued:
            raise UserError(f'{pod.name!r} is queued ({queued}): {pod.launcher("status")} shows it')
        raise UserError(
            f'there is no pod {pod.name!r} in {pod.zone} of {pod.project}: '
            f'{pod.launcher("create")} --type=v5litepod-16 makes one'
        )
    if found and found.state != 'READY':
        raise UserError(
            f'the pod {pod.name!r} is {found.state}, and not READY: '
            f'{pod.launcher("status")} shows it'
        )
    return found


def seconds_of(flag, text):
    """Seconds of a duration such as 8h, 90m, 2d, 3600s.

    Raises:
        UserError: it is none.
    """
    found = re.fullmatch(r'(\d+)([smhd])', text)
    if not found or not int(found[1]):
        raise UserError(f'{flag}={text!r} is no duration: for example 8h, 90m or 2d')
    return int(found[1]) * {'s': 1, 'm': 60, 'h': 3600, 'd': 86400}[found[2]]


def delete_after(pod, seconds, queued):
    """The start-up script that deletes the pod `seconds` after its first start."""
    command = known_flags.check(pod.delete(queued))
    return DELETE_AFTER.format(
        worker_number=WORKER_NUMBER, seconds=seconds, delete=shlex.join(command)
    )


def at_end(pod, queued, workdir):
    """Shell for the end of a run: keeps the log on gs://, and deletes the pod from worker 0.

    Args:
        pod: Pod. queued: it was made by a queued resource. workdir: of the run, or None.
    """
    lines = [f'worker=$({WORKER_NUMBER})']
    if workdir and workdir.startswith('gs://'):
        logs = shlex.quote(f'{workdir.rstrip("/")}/logs')
        known_flags.check(['gcloud', 'storage', 'cp'])
        lines.append(f'gcloud storage cp "${{folder:?}}/log" {logs}/worker-"$worker".log')
    delete = shlex.join(known_flags.check(pod.delete(queued)))
    # The other workers keep their logs meanwhile.
    lines.append(f'if [ "$worker" = 0 ]; then sleep "${{LAUNCH_PAUSE:-60}}"; {delete}; fi')
    return '\n'.join(lines)


def states(text):
    """What the supervisors say: the words behind each `launch-state: `."""
    return re.findall(r'^launch-state: (.*)$', text or '', re.MULTILINE)


def ask_state(programs, pod):
    """The state of the run on each worker that has answered; [] in a dry run.

    Raises:
        UserError: no worker answers, or the project is not there.
    """
    script = (
        f'if {IN_PROJECT} 2>/dev/null; then {SUPERVISOR.format(action="state")}; '
        'else echo "launch-state: no project"; fi'
    )
    said = states(programs.ask(*pod.ssh(script)))
    if not said and not programs.dry_run:
        raise UserError(f'no worker of {pod.name!r} has answered: {pod.launcher("setup")}')
    if 'no project' in said:
        raise UserError(f'the project is not on {pod.name!r} yet: {pod.launcher("setup")}')
    return said


def age(created):
    """Seconds since a time as gcloud writes it; None where there is none."""
    if not created:
        return None
    text = re.sub(r'\.\d+', '', created).replace('Z', '+00:00')
    return (datetime.now(UTC) - datetime.fromisoformat(text)).total_seconds()


def overdue(found):
    """Whether a pod is there that should have been deleted long ago.

    Args:
        found: Facts, whose `end` is such as delete-after-8h.
    """
    limit, old = found.end.rpartition('-')[2], age(found.created)
    if found.end == KEPT or old is None or not re.fullmatch(r'\d+[smhd]', limit):
        return False
    return old > seconds_of('--delete_after', limit) + GRACE


def check_place(zone, project):
    """Raises UserError where the zone or the project is not known."""
    for flag, value, variable in (
        ('zone', zone, 'CLOUDSDK_COMPUTE_ZONE'), ('project', project, 'CLOUDSDK_CORE_PROJECT')
    ):  # fmt: skip
        if not value:
            example = 'us-west4-a' if flag == 'zone' else 'my-project'
            raise UserError(f'--{flag} is missing: give --{flag}={example}, or set {variable}')
        if not re.fullmatch(r'[a-z][-a-z0-9:.]*', value):
            raise UserError(f'--{flag}={value!r} is no name of a {flag}')
