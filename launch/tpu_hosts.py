"""What happens on the workers of a pod: the project, the corpus, the run."""

import shlex
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path

from launch import known_flags, staging
from launch.tpu_pod import FOLDER, IN_PROJECT, SUPERVISOR, ask_state, states
from pretrain.errors import UserError

ARCHIVE = 'project.tar.gz'
SEEN = 'launch-seen'
PAUSES = (1, 5, 15, 30)  # seconds between questions whether all workers have ended


def setup(programs, pod, extra, hosts):
    """Brings the working tree of the present folder to all workers, and installs it.

    Args:
        programs: commands.Programs. pod: Pod. extra: extras to install, '[tpu,gcs]'. hosts: number
            of workers; None where it is not known.

    Raises:
        UserError: here is no checkout of the project, or a worker did not finish.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / ARCHIVE
        if not programs.dry_run:
            pack(path)
            print('installing on all workers, which takes minutes', flush=True)
        programs.do(*pod.scp(path, ARCHIVE))
        # The script that installs is in what it unpacks.
        unpack = f'tar --extract --gzip --file={ARCHIVE} --to-stdout launch/install.sh'
        script = f'{unpack} | bash -s -- {ARCHIVE} "$HOME"/{FOLDER} {shlex.quote(extra)}'
        said = programs.ask(*pod.ssh(script))
    if said is not None:
        count(said, 'launch-installed', hosts, 'installed the project')
        print(f'installed on {hosts} workers; next: {pod.launcher("run")} --delete_when_done -- ..')


def check_rights(programs, pod):
    """Raises UserError where a pod that is to delete itself may not even see itself.

    That it may is no proof that it may delete; that it may not is proof enough.
    """
    look = known_flags.check(pod.gcloud('compute tpus tpu-vm describe', '--format=json'))
    script = f'{shlex.join(look)} >/dev/null && echo {SEEN} || true'
    said = programs.ask(*pod.ssh(script, worker=0))
    if said is not None and SEEN not in said:
        raise UserError(
            f'the service account of {pod.name!r} has no rights to TPUs, so the pod cannot delete '
            'itself: give it the role roles/tpu.admin, or create the pod with another '
            f'--service_account; {pod.launcher("delete")} deletes it'
        )


def pack(path):
    """Writes the working tree, changes and all but what git ignores, as one archive.

    Raises:
        UserError: the present folder is not the top of a checkout of the project.
    """
    command = ['git', 'ls-files', '--cached', '--others', '--exclude-standard', '-z']
    try:
        listed = subprocess.run(command, capture_output=True, check=True).stdout.decode()
    except (OSError, subprocess.CalledProcessError):
        listed = ''
    names = [name for name in listed.split('\0') if name and Path(name).exists()]
    if 'launch/install.sh' not in names:
        raise UserError(
            f'{str(Path.cwd())!r} is no git checkout of the project: setup sends the one that it '
            'is called in'
        )
    with tarfile.open(path, 'w:gz') as archive:
        for name in names:
            archive.add(name)


def stage(programs, pod, corpus, to, hosts):
    """Brings a corpus to every worker's disk, and has each check every byte.

    Args:
        programs: commands.Programs. pod: Pod. corpus: a folder here, which is sealed, or one on
            gs:// that was sealed before its upload. to: folder on the workers. hosts: number of
            workers; None where it is not known.

    Raises:
        UserError: the corpus is not finished or not sealed, or a worker has not all of it.
    """
    corpus = corpus.rstrip('/')
    name = shlex.quote(corpus.rpartition('/')[2])
    target, digest = f'"$HOME"/{shlex.quote(to)}', staging.SHA256.value
    verify = f'{IN_PROJECT} && ../venv/bin/python -m launch.staging verify {target}/{name}'
    if corpus.startswith('gs://'):
        rsync = ['gcloud', 'storage', 'rsync', '--recursive']
        known_flags.check(rsync)
        fetch = f'mkdir -p {target}/{name} && {shlex.join([*rsync, corpus])} {target}/{name}'
        known = f' --sha256={digest}' if digest else ''
        said = programs.ask(*pod.ssh(f'{fetch} && {verify}{known}'))
    else:
        digest = 'DIGEST' if programs.dry_run else staging.seal(corpus)
        programs.do(*pod.ssh(f'mkdir -p {target}'))
        programs.do(*pod.scp(corpus, f'{to}/', '--recurse'))
        said = programs.ask(*pod.ssh(f'{verify} --sha256={digest}'))
    if said is None:
        return
    found = set(count(said, staging.VERIFIED, hosts, 'verified the corpus'))
    if len(found) > 1:
        raise UserError(f'the workers have different corpora: {", ".join(sorted(found))}')
    print(f'{hosts} workers have {corpus}, every byte of it; sha256 of its list: {found.pop()}')
    print(f'a run finds it with --config.data.cache=cache where --to is {FOLDER}/project/cache')


def count(text, word, hosts, did):
    """What stands behind a word in the lines of all workers.

    Raises:
        UserError: not every worker has said it.
    """
    lines = [line for line in text.splitlines() if line.startswith(word)]
    if len(lines) != hosts:
        raise UserError(f'{len(lines)} of {hosts} workers have {did}: see above, and try again')
    return [line.removeprefix(word).strip() for line in lines]


def run(programs, pod, training, hosts, restarts, pause, at_end):
    """Begins a run on all workers and follows it; where it is there already, follows it only.

    Args:
        programs: commands.Programs. pod: Pod. training: commands.Training. hosts: number of
            workers. restarts, pause: as the supervisor takes them, pause in seconds. at_end: shell
            for the end of the run, or ''.

    Returns:
        The run's exit code; None where it goes on, and in a dry run.

    Raises:
        UserError: another run is there, or a worker has not begun.
    """
    words = training.command(extra=['--distributed'] if hosts > 1 else [])[1:]
    shown = f'../venv/bin/python {shlex.join(words)}'
    said = ask_state(programs, pod)
    others = [s.removeprefix('running ') for s in said if s.startswith('running ')]
    # The supervisor writes down the words without their quotes.
    plain = ' '.join(['env', 'JAX_PLATFORMS=tpu,cpu', '../venv/bin/python', *words])
    plain = plain.partition('\n')[0]
    if any(other != plain for other in others):
        raise UserError(
            f'another run is on {pod.name!r}: {others[0]!r}: {pod.launcher("stop")} --run_only '
            'ends it'
        )
    if others:
        print('the run is there already: this follows it')
    if len(others) < hosts:
        start = SUPERVISOR.format(action='start')
        script = (
            f'{IN_PROJECT} && {start} {restarts} {pause} {shlex.quote(at_end)} '
            f'env JAX_PLATFORMS=tpu,cpu {shown}'
        )
        answers = states(programs.ask(*pod.ssh(script)))
        if len(answers) != hosts and not programs.dry_run:
            raise UserError(
                f'{len(answers)} of {hosts} workers have begun: see {pod.launcher("status")}'
            )
    return follow(programs, pod, 0)


def follow(programs, pod, worker):
    """Shows the log of a worker until its run has ended.

    Returns:
        The run's exit code; None where it goes on, and in a dry run.
    """
    script = f'{IN_PROJECT} && {SUPERVISOR.format(action="follow")}'
    programs.watch(*pod.ssh(script, worker))
    for pause in (*PAUSES, None):
        said = ask_state(programs, pod)
        ended = [s.rpartition(' ')[2] for s in said if s.startswith('ended with exit code ')]
        if pause is None or not ended or len(ended) == len(said):
            break
        time.sleep(pause)  # the others end a little later
    print(f'run: {describe(said)}')
    return max(map(int, ended)) if ended and len(ended) == len(said) else None


def stop(programs, pod):
    """Tells the run to save and to end, and waits for it."""
    said = states(programs.ask(*pod.ssh(f'{IN_PROJECT} && {SUPERVISOR.format(action="stop")}')))
    print(f'run: {describe(said)}')


def describe(said):
    """The states of all workers in one line."""
    kinds = {state: said.count(state) for state in said}
    return '; '.join(f'{n} workers: {state}' for state, n in kinds.items()) or 'not asked'
