"""A run's folder: what it holds, and whether a run may go on in it."""

import fcntl
import json
import os

from pretrain import commandline, restoration, storage
from pretrain.data import tokenizer
from pretrain.data.shards import write_whole
from pretrain.errors import UserError

# What may differ when a run goes on: where it runs and how often it reports, not what it computes.
FREE_KEYS = (
    'name', 'mesh', 'init_from', 'checkpoint.', 'eval.', 'log.', 'sample.',
    'data.cache', 'data.data_dir', 'data.workers', 'data.prefetch',
)  # fmt: skip
# What runs did before there was a key for it.
BEFORE = {
    'data.mixture': (),
    'data.mixing': 'weights',
    'data.temperature': 1.0,
    'data.cap': 0,
    'data.filters': (),
}


def check_config(workdir, config, accept_changes):
    """Refuses a workdir that cannot be written, or that holds a run of another config."""
    if storage.is_remote(workdir):
        storage.check_writable(workdir)
    else:
        existing = workdir
        while not os.path.exists(existing):  # unlike Path.exists, not raised where one may not look
            existing = existing.parent
        if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
            raise UserError(f'--workdir: {str(workdir)!r} cannot be written: give another folder')
    path = workdir / 'config.json'
    if not path.exists() or accept_changes:
        return
    before, now = (
        BEFORE | commandline.flatten(c.to_dict()) for c in (commandline.read_config(path), config)
    )
    changed = [
        f'{key} was {before.get(key)!r}, is {now.get(key)!r}'
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and not key.startswith(FREE_KEYS)
    ]
    if changed:
        raise UserError(
            f'{str(workdir)!r} holds a run of another config ({"; ".join(changed)}): '
            'give another --workdir, or --accept_changes'
        )


def with_own_tokenizer(workdir, data):
    """The config's `data`, with the run's own copy of a tokenizer whose file is gone.

    Args:
        workdir: Path. data: the config's section.
    """
    own = tokenizer.find(workdir) if workdir.is_dir() else None
    if not data.tokenizer or own is None or storage.place(data.tokenizer).exists():
        return data
    data = data.copy_and_resolve_references()
    with data.unlocked():
        data.tokenizer = str(own)
    return data


def check_own_tokenizer(workdir, corpus):
    """Refuses a corpus whose tokenizer is not the one that the run in this folder began with."""
    path = tokenizer.find(workdir)
    if path and tokenizer.load(path).digest != corpus.tokenizer.digest:
        raise UserError(
            f'the text of {corpus.source}, or its tokenizer, has changed since the run '
            f'in {str(workdir)!r} began: put it back, or give another --workdir'
        )


def check_other_tokenizer(run, tokens):
    """Refuses parameters of a run whose tokenizer is not the corpus's."""
    if tokenizer.load(run).digest != tokens.digest:
        raise UserError(
            f'init_from={str(run)!r} was trained with another tokenizer than that of the corpus: '
            f'set data.tokenizer={tokenizer.find(run)}'
        )


def check_teacher(run, tokens):
    """Refuses a teacher whose tokenizer is not the corpus's, piece by piece."""
    folder = of_checkpoint(run)
    if tokenizer.load(folder).digest != tokens.digest:
        raise UserError(
            f'objective.teacher={run!r} was trained with another tokenizer than that of the '
            f'corpus: set data.tokenizer={tokenizer.find(folder)}'
        )


def check_corpus(workdir, digest, corpus):
    """Refuses to go on with a corpus that is not the one that the run has read so far."""
    if digest != corpus.digest:
        raise UserError(
            f'the text of {corpus.source} is not what {str(workdir)!r} was trained on '
            'so far: put it back, give another --workdir, or --accept_changes'
        )


def of_checkpoint(path):
    """The run's folder, given it, its folder of checkpoints or one of those."""
    folder, _ = restoration.find(path)
    return folder.parent if folder.name == 'checkpoints' else folder


def lock(workdir):
    """Keeps a second run from writing into this folder, until the file it returns is closed.

    The system lets go of it when the process ends, however it ends. On gs:// nothing can be locked:
    None is returned.
    """
    if storage.is_remote(workdir):
        return None
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        file = open(workdir / '.lock', 'w')
    except OSError as error:
        raise _unwritable(workdir, error) from None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise UserError(
            f'another process is training in {str(workdir)!r}: wait for it, or give another '
            '--workdir'
        ) from None
    except OSError:  # a file system without locks
        pass
    return file


def has_checkpoints(workdir):
    """Whether a run has saved anything here, whole or not."""
    folder = workdir / 'checkpoints'
    return folder.is_dir() and bool(restoration.steps_in(folder))


def write(workdir, config, tokens):
    """Makes the run's folder with its config and its tokenizer."""
    try:
        with write_whole(workdir / 'config.json') as file:
            file.write(json.dumps(config.to_dict(), indent=2).encode())
        with write_whole(workdir / tokens.file) as file:
            file.write(tokens.model)
    except OSError as error:
        raise _unwritable(workdir, error) from None


def _unwritable(workdir, error):
    return UserError(f'--workdir: cannot write {str(workdir)!r}: {error.strerror}')
