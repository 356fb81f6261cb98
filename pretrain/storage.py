"""Where a folder lies: on a disk, or on Google Cloud Storage (gs://bucket/folder).

A run's workdir may be either. On gs:// an object appears whole or not at all, but cannot be
appended to, renamed or locked: checkpoints and small files are written in place, and what grows
(metrics.jsonl, TensorBoard's events) is kept in a local folder and copied at every save.
"""

import base64
import contextlib
import functools
import logging
from pathlib import Path

from pretrain.errors import UserError

REMOTE = 'gs://'


def is_remote(path):
    """Whether a path is on Google Cloud Storage.

    Args:
        path: str, Path or epath.Path.
    """
    return str(path).startswith(REMOTE)


def place(path):
    """The path as an object that can be read and joined, wherever it lies.

    Args:
        path: str, Path or epath.Path.

    Returns:
        A pathlib.Path, or an epath.Path of the same methods for gs://.

    Raises:
        UserError: it is on gs:// and gcsfs is not installed, or on something else.
    """
    if not is_remote(path):
        if '://' in str(path):
            raise UserError(f'{str(path)!r} is neither a folder of this machine nor on {REMOTE}')
        return Path(path)
    bucket = str(path).removeprefix(REMOTE).partition('/')[0]
    if not bucket:
        raise UserError(f'{str(path)!r} names no bucket: write gs://BUCKET/FOLDER')
    file_system()
    from etils import epath  # comes with orbax

    return epath.Path(str(path))


def local(path, flag):
    """The path as a pathlib.Path, where gs:// will not do.

    Args:
        path: str. flag: what gave it, for the message.

    Raises:
        UserError: it is on gs://, or on something else.
    """
    if is_remote(path):
        raise UserError(
            f'{flag}: {path!r} should lie on this machine: of all that is written, only '
            'the workdir of pretrain.train may lie on gs://'
        )
    return place(path)


@functools.cache
def file_system():
    """The gcsfs.GCSFileSystem that epath uses too.

    Raises:
        UserError: gcsfs is not installed.
    """
    try:
        import fsspec
        import gcsfs  # noqa: F401
    except ImportError:
        raise UserError(
            "gs:// needs gcsfs, which is not installed: pip install -e '.[gcs]'"
        ) from None
    # Arrays are written beside it, by another library: what it remembers of a folder is not true.
    fsspec.config.conf.setdefault('gs', {})['use_listings_cache'] = False
    # What fails is raised as well; and it warns where one may not ask for the kind of a bucket.
    logging.getLogger('gcsfs').setLevel(logging.CRITICAL)
    return fsspec.filesystem('gcs', finalize_on_close=True)


@contextlib.contextmanager
def errors(path, doing):
    """Turns what Google Cloud Storage answers into one line for the user.

    Args:
        path: what is read or written. doing: 'read' or 'write'.

    Raises:
        UserError: in place of any error of the network, the credentials or the bucket.
    """
    try:
        yield
    except Exception as error:
        if not (is_remote(path) and reason(error)):
            raise
        raise UserError(
            f'cannot {doing} {str(path)!r}: {reason(error)}: check the bucket, and what '
            '`gcloud auth application-default login` gives access to'
        ) from error


def reason(error):
    """What storage on the network complained of, in its words; None for any other error.

    Args:
        error: an exception; those that it came from are looked at as well.
    """
    while error is not None:
        module = type(error).__module__.partition('.')[0]
        words = str(error).strip().partition('\n')[0] or type(error).__name__
        if isinstance(error, FileNotFoundError):
            words = 'there is no such bucket or object'
        if module in ('gcsfs', 'google', 'aiohttp', 'requests', 'asyncio', 'fsspec'):
            return words
        # gcsfs raises these without a number, tensorstore a ValueError with the address.
        if isinstance(error, OSError) and not error.errno:
            return words
        if isinstance(error, ValueError) and (REMOTE in words or 'http' in words):
            return words.partition(' [')[0]  # what it was opened with follows, at length
        error = error.__cause__ or error.__context__
    return None


def check_writable(folder):
    """Writes a byte to a folder on gs:// and takes it back.

    Args:
        folder: str or epath.Path.

    Raises:
        UserError: one may not, or there is no such bucket.
    """
    with errors(folder, 'write'):
        probe = f'{folder}/.writable'
        file_system().pipe_file(probe, b'1')
        file_system().rm_file(probe)


def objects(folder):
    """The objects under a folder on gs://.

    Args:
        folder: str or epath.Path.

    Returns:
        {name relative to the folder: (bytes, md5 in hex or None)}: the storage keeps the md5 of
        every object that was not composed of others, and checks it itself.
    """
    root = str(folder).removeprefix(REMOTE).rstrip('/') + '/'
    found = file_system().find(root, detail=True)
    return {
        name.removeprefix(root): (entry['size'], _hex(entry.get('md5Hash')))
        for name, entry in found.items()
        if not name.endswith('/')
    }


def _hex(md5):
    return base64.b64decode(md5).hex() if md5 else None


def move(source, target):
    """Moves a folder of gs://, object by object; what is at the target already goes.

    Args:
        source, target: str or epath.Path.
    """
    remove(target)
    names = list(objects(source))
    file_system().copy([f'{source}/{n}' for n in names], [f'{target}/{n}' for n in names])
    remove(source)


def remove(folder):
    """Removes a folder of gs:// with all that is in it; nothing where there is none.

    Args:
        folder: str or epath.Path.
    """
    with contextlib.suppress(FileNotFoundError):
        file_system().rm(str(folder), recursive=True)
