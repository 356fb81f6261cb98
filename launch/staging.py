"""Checksums of a prepared corpus, so that each host can tell that it has the whole of it.

    python -m launch.staging seal cache/wikipedia-excerpt-0123456789
    python -m launch.staging verify cache/wikipedia-excerpt-0123456789 --sha256=DIGEST

`seal` writes sha256.json into the folder, and prints its own sha256, which stands for all: upload
the folder with it. `verify` reads every byte again, on whatever machine it is called.
"""

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from absl import flags

from launch import commands
from pretrain.data.shards import write_whole
from pretrain.errors import UserError

LIST = 'sha256.json'
SHA256 = flags.DEFINE_string('sha256', None, 'What seal printed, of a sealed corpus.')
VERIFIED = 'launch-verified'
BLOCK = 1 << 22  # bytes read at a time


def main(argv, training):
    """Seals or verifies the folder that is named."""
    action = commands.subcommand(argv, ('seal', 'verify'))
    commands.no_more(argv + training, 3)
    if len(argv) < 3:
        raise UserError(f'name the folder of a corpus: python -m launch.staging {action} FOLDER')
    digest = seal(argv[2]) if action == 'seal' else verify(argv[2], SHA256.value)
    if action == 'seal':
        print(f'sha256 of {argv[2]}/{LIST}: {digest}')
    else:
        print(f'{VERIFIED} {digest}')


def seal(folder):
    """Writes the list of a corpus's checksums into its folder.

    Args:
        folder: path of a finished corpus.

    Returns:
        sha256 of the list, hexadecimal.

    Raises:
        UserError: the folder holds no finished corpus.
    """
    from pretrain.data.corpus import Corpus  # the workers, which verify, need not wait for it

    folder = Path(folder)
    Corpus(folder)
    text = json.dumps({'files': checksums(folder, files_of(folder))}, indent=1).encode()
    with write_whole(folder / LIST) as file:
        file.write(text)
    return hashlib.sha256(text).hexdigest()


def verify(folder, digest=None):
    """Compares every file of a corpus with the list in its folder.

    Args:
        folder: path of a corpus. digest: what `seal` returned; None: the list is trusted.

    Returns:
        sha256 of the list, hexadecimal.

    Raises:
        UserError: a file is missing or differs, or the list does.
    """
    folder = Path(folder)
    path = folder / LIST
    if not path.is_file():
        raise UserError(
            f'{str(folder)!r} has no {LIST}: python -m launch.staging seal, where the corpus was '
            'made, writes it'
        )
    text = path.read_bytes()
    found = hashlib.sha256(text).hexdigest()
    if digest and found != digest:
        raise UserError(f'{str(path)!r} has the sha256 {found}, and not {digest}: stage it again')
    try:
        listed = json.loads(text)['files']
        missing = [name for name in listed if not (folder / name).is_file()]
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f'{str(path)!r} is damaged ({error}): stage it again') from None
    if missing:
        first = str(folder / missing[0])
        raise UserError(f'{len(missing)} files are missing, the first: {first!r}: stage it again')
    now = checksums(folder, listed)
    wrong = [name for name in listed if now[name] != listed[name]]
    if wrong:
        raise UserError(
            f'{len(wrong)} files differ from what was sealed, the first: '
            f'{str(folder / wrong[0])!r}: stage it again'
        )
    return found


def files_of(folder):
    """Names of the files that a run reads, relative to the corpus's folder, sorted.

    Pictures and what a killed process has left are none.
    """
    whole = [path for path in Path(folder).rglob('*') if path.is_file()]
    names = [path.relative_to(folder).as_posix() for path in whole]
    return sorted(
        name for name in names
        if name != LIST and not name.endswith('.png') and '.partial' not in name
        and not any(part.startswith('.') for part in name.split('/'))
    )  # fmt: skip


def checksums(folder, names):
    """{name: sha256} of files, several at a time."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return dict(zip(names, pool.map(lambda name: checksum(Path(folder) / name), names)))


def checksum(path):
    """sha256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


if __name__ == '__main__':
    commands.run(main)
