"""The sha256 of every file of a checkpoint, so that damage is found before it is trained on.

Array files carry no checksum that a restore looks at: a flipped bit in one restores as a wrong
number without a word. `manifest.json` in the checkpoint's folder lists the size and the sha256 of
each file; a checkpoint is whole when its manifest is there and every listed file agrees with it.
"""

import concurrent.futures
import hashlib
import json
import os
from collections.abc import Collection
from pathlib import Path

NAME = 'manifest.json'
# Written into the top of the folder after the manifest, and read by no restore.
_BOOKKEEPING = frozenset({'_CHECKPOINT_METADATA', 'commit_success.txt', NAME})
_THREADS = 4


def _digest(path: Path) -> str:
    with open(path, 'rb') as file:
        return hashlib.file_digest(file, 'sha256').hexdigest()


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

    The manifest appears whole or not at all (a temporary file, fsync, rename).

    Args:
      folder: the folder of one checkpoint.

    Raises:
      OSError: a file cannot be read, or the manifest cannot be written.
    """
    folder = Path(folder)
    names = sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob('*') if path.is_file()
    )
    names = [name for name in names if name not in _BOOKKEEPING]
    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        entries = list(pool.map(lambda name: _durable_entry(folder / name), names))
    text = json.dumps({'algorithm': 'sha256', 'files': dict(zip(names, entries))}, indent=1)
    temporary = folder / (NAME + '.tmp')
    with open(temporary, 'w', encoding='utf-8') as file:
        file.write(text + '\n')
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, folder / NAME)
    _sync_folder(folder)


def item_digest(folder: str | Path, item: str) -> str:
    """One sha256 that stands for all files of an item ('params') of a checkpoint.

    Args:
      folder: the folder of one checkpoint, with its manifest.
      item: name of the subfolder.
    """
    listed = json.loads((Path(folder) / NAME).read_bytes())['files']
    entries = {name: e['sha256'] for name, e in listed.items() if name.startswith(f'{item}/')}
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
    folder = Path(folder)
    try:
        listed = json.loads((folder / NAME).read_bytes())['files']
        entries = {
            name: (entry['size'], entry['sha256'])
            for name, entry in listed.items()
            if items is None or name.partition('/')[0] in items
        }
    except FileNotFoundError:
        return f'no {NAME}'
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return f'{NAME} is not readable'

    for name, (size, _) in sorted(entries.items()):
        try:
            found = os.stat(folder / name).st_size
        except OSError as error:
            return f'{name}: {os.strerror(error.errno)}'
        if found != size:
            return f'{name}: {found} bytes instead of {size}'

    def differs(name):
        try:
            return None if _digest(folder / name) == entries[name][1] else 'sha256 differs'
        except OSError as error:
            return os.strerror(error.errno)

    with concurrent.futures.ThreadPoolExecutor(_THREADS) as pool:
        for name, reason in zip(entries, pool.map(differs, entries)):
            if reason:
                return f'{name}: {reason}'
    return None
