"""The digest of every file of a checkpoint, so that damage is found before it is trained on.

Array files carry no checksum that a restore looks at: a flipped bit in one restores as a wrong
number without a word. `manifest.json` in the checkpoint's folder lists the size and the sha256 of
each file; a checkpoint is whole when its manifest is there and every listed file agrees with it.

On gs:// the digest is the md5, which the storage computes and keeps itself: a listing proves a
checkpoint of any size whole, where reading it back would take as long as writing it. A checkpoint
may be copied from there to a disk and back, and is still proved.
"""

import concurrent.futures
import errno
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

from pretrain import storage

NAME = 'manifest.json'
# Written into the top of the folder after the manifest, and read by no restore.
_BOOKKEEPING = frozenset({'_CHECKPOINT_METADATA', 'commit_success.txt', NAME})
_THREADS = 4
_ON_DISK, _REMOTE = 'sha256', 'md5'


def _digest(path: Path, algorithm: str = _ON_DISK) -> str:
    with path.open('rb') as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _durable_entry(path: Path) -> dict:
    """Size and sha256 of a file, after its bytes have been forced to the disk."""
    with open(path, 'rb') as file:
        # An older checkpoint is deleted on the strength of this one, and some file systems report
        # a full disk only here.
        os.fsync(file.fileno())
        digest = hashlib.file_digest(file, 'sha256').hexdigest()
        return {'size': os.fstat(file.fileno()).st_size, 'sha256': digest}


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write(folder: str | Path) -> None:
    """Writes `manifest.json` into a checkpoint's folder whose other files are all written.

    The manifest appears whole or not at all (a temporary file, fsync, rename; on gs:// one object).

    Args:
      folder: the folder of one checkpoint.

    Raises:
      OSError: a file cannot be read, or the manifest cannot be written.
    """
    folder = storage.place(folder)
    if storage.is_remote(folder):
        found = storage.objects(folder)
        entries = {
            name: {'size': size, _REMOTE: md5 or _digest(folder / name, _REMOTE)}
            for name, (size, md5) in sorted(found.items())
            if name not in _BOOKKEEPING
        }
        (folder / NAME).write_text(_text(_REMOTE, entries))
        return
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()
    )
    names = [name for name in names if name not in _BOOKKEEPING]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        entries = list(pool.map(lambda name: _durable_entry(folder / name), names))
    text = _text(_ON_DISK, dict(zip(names, entries)))
    temporary = folder / (NAME + '.tmp')
    with open(temporary, 'w', encoding='utf-8') as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)
    _sync_folder(folder)


def _text(algorithm: str, entries: dict) -> str:
    return json.dumps({'algorithm': algorithm, 'files': entries}, indent=1) + '\n'


def item_digest(folder: str | Path, item: str) -> str:
    """One sha256 that stands for all files of an item ('params') of a checkpoint.

    Args:
      folder: the folder of one checkpoint, with its manifest.
      item: name of the subfolder.
    """
    listed = json.loads((storage.place(folder) / NAME).read_bytes())
    kind = listed['algorithm']
    files = listed['files'].items()
    entries = {name: entry[kind] for name, entry in files if name.startswith(f'{item}/')}
    return hashlib.sha256(json.dumps(entries, sort_keys=True).encode()).hexdigest()


def fault(folder: str | Path, items: Collection[str] | None = None) -> str | None:
    """What is wrong with a checkpoint's folder, in a few words; None where it is whole.

    Files that the manifest does not list are not looked at: nothing reads them.

    Args:
      folder: the folder of one checkpoint.
      items: names of subfolders; only the files under these are checked. None checks all.

    Returns:
      None, or a reason that names the first bad file, such as `params/d/ab12: sha256 differs`.
    """
    folder = storage.place(folder)
    try:
        listed = json.loads((folder / NAME).read_bytes())
        algorithm = listed['algorithm']
        entries = {
            name: (entry['size'], entry[algorithm])
            for name, entry in listed['files'].items()
            if items is None or name.partition('/')[0] in items
        }
        hashlib.new(algorithm)
    except FileNotFoundError:
        return f'no {NAME}'
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f'{NAME} is not readable'

    found = _looked_at(folder, entries)
    for name, (size, _) in sorted(entries.items()):
        if isinstance(found[name], str):
            return f'{name}: {found[name]}'
        if found[name][0] != size:
            return f'{name}: {found[name][0]} bytes instead of {size}'

    def differs(name):
        known = found[name][1] if algorithm == _REMOTE else None
        try:
            digest = known or _digest(folder / name, algorithm)
            return None if digest == entries[name][1] else f'{algorithm} differs'
        except OSError as error:
            return os.strerror(error.errno) if error.errno else str(error)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for name, reason in zip(entries, pool.map(differs, entries)):
            if reason:
                return f'{name}: {reason}'
    return None


def _looked_at(folder, names) -> dict:
    """{name: (bytes, md5 where the storage knows it)}, or in place of these why there is none."""
    if storage.is_remote(folder):
        objects = storage.objects(folder)
        return {name: objects.get(name, os.strerror(errno.ENOENT)) for name in names}

    def size(name):
        try:
            return os.stat(folder / name).st_size, None
        except OSError as error:
            return os.strerror(error.errno)

    return {name: size(name) for name in names}
