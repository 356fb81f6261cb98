"""Where the files of a benchmark lie in a folder, and what is wrong if they do not.

A folder of another benchmark, of one task, or above the right one is named as such.
"""

import dataclasses
import re
from collections.abc import Callable
from pathlib import Path

from pretrain.errors import UserError

# The folders of each benchmark and how its files end: RTE is in two, and only the ending tells.
_GLUE = ('CoLA', 'SST-2', 'MRPC', 'STS-B', 'QQP', 'MNLI', 'QNLI', 'RTE', 'WNLI', 'AX')
_GLUE_ELSEWHERE = ('diagnostic', 'MultiNLI', 'QNLIv2', 'SST', 'STS')
BENCHMARKS = {
    'glue': ('GLUE', ('.tsv', 'msr_paraphrase_train.txt'), _GLUE + _GLUE_ELSEWHERE),
    'superglue': (
        'SuperGLUE',
        ('.jsonl',),
        ('BoolQ', 'CB', 'COPA', 'MultiRC', 'ReCoRD', 'RTE', 'WiC', 'WSC', 'AX-b', 'AX-g'),
    ),
    'snli': ('SNLI', ('.jsonl', '.txt', '.tsv'), ('SNLI', 'snli_1.0')),
}
# Benchmarks whose files may lie in the folder itself.
LOOSE = {
    'SNLI': re.compile(r'snli_1\.0_(train|dev|test)\.(jsonl|txt)'),
    'SQuAD': re.compile(r'(train|dev)-v\d\.\d\.json'),
}


@dataclasses.dataclass(frozen=True)
class Reader:
    """Reads one task: called with the folder of the benchmark and a split, gives Examples.

    benchmark: a key of BENCHMARKS, or 'own'.
    folders: names that the task's folder has in one distribution or another; '' is the
        benchmark's own folder.
    files: {split: names of its file, the best first}; a tuple is a file and others that it needs.
    parse: (path of the file, split) -> list of Example.
    """

    benchmark: str
    folders: tuple[str, ...]
    files: dict
    parse: Callable[[Path, str], list]

    def __call__(self, data_dir, split):
        """The examples of a split, in the file's order.

        Raises:
            UserError: there is no such file, something in it is wrong, it has no rows, or a test
                file has two of one index.
        """
        if split not in self.files:
            raise UserError(f'there is no split {split!r}: choose from {", ".join(self.files)}')
        path = self.find(data_dir, split)
        if path is None:
            raise self._missing(Path(data_dir).expanduser(), split)
        examples = self.parse(path, split)
        if not examples:
            raise UserError(f'{path} has no rows: the {split} split is empty, fetch the file again')
        if split.startswith('test'):  # the server knows a row by its index alone
            seen = set()
            for example in examples:
                if example.index in seen:
                    raise UserError(f'{path}: idx {example.index} stands there twice')
                seen.add(example.index)
        return examples

    def find(self, data_dir, split):
        """Path of the file of a split, or None."""
        for folder in self.folders:
            for place in _entries(data_dir, folder):
                for name in self.files.get(split, ()):
                    needed = [_file(place, part) for part in _parts(name)]
                    if all(needed):
                        return needed[0]
        return None

    def _missing(self, data_dir, split):
        fault = wrong_folder(data_dir, self.benchmark)
        if fault:
            return UserError(fault)
        folder = f'{self.folders[0]}/' if self.folders[0] else ''
        names = [' with '.join(_parts(name)) for name in self.files[split]]
        first = f'{folder}{names[0]}'
        more = f' (nor {" nor ".join(names[1:])})' if names[1:] else ''
        there = _entries(data_dir, self.folders[0])
        if folder and there:
            held = sorted(path.name for path in there[0].iterdir())
            shown = ', '.join(held[:16]) or 'nothing'
            return UserError(f'there is no {first}{more} in {data_dir}: {there[0]} holds {shown}')
        return UserError(f'there is no {first}{more} in {data_dir}: put the {split} file there')


def available(data_dir, tasks):
    """Which splits of which tasks have files, without reading them.

    Args:
        data_dir: folder of the benchmark. tasks: {name: Task} of one benchmark.

    Returns:
        {name: tuple of splits}, in the tasks' order; a task without any file is left out.

    Raises:
        UserError: there is no such folder, or it holds none of these tasks.
    """
    found = {
        name: tuple(split for split in task.splits if task.read.find(data_dir, split))
        for name, task in tasks.items()
    }
    found = {name: splits for name, splits in found.items() if splits}
    if not found:
        readers = [task.read for task in tasks.values()]
        fault = wrong_folder(data_dir, readers[0].benchmark)
        wanted = ', '.join(dict.fromkeys(f'{reader.folders[0]}/' for reader in readers))
        raise UserError(fault or f'--data_dir: {data_dir} holds none of {wanted}')
    return found


def wrong_folder(data_dir, benchmark):
    """What is wrong with a folder that was given as that of a benchmark; '' if nothing is.

    Args:
        data_dir: the folder. benchmark: a key of BENCHMARKS, or 'own'.
    """
    data_dir = Path(data_dir).expanduser()
    if not data_dir.is_dir():
        what = 'a file, not a folder' if data_dir.exists() else 'not there'
        return f'--data_dir: {str(data_dir)!r} is {what}: give the folder that holds the files'
    if benchmark not in BENCHMARKS:
        return ''
    title, _, folders = BENCHMARKS[benchmark]
    held = {BENCHMARKS[name][0]: _folders_of(data_dir, name) for name in BENCHMARKS}
    for name, pattern in LOOSE.items():
        loose = sorted(path.name for path in data_dir.iterdir() if pattern.fullmatch(path.name))
        held[name] = held.get(name, []) + loose
    if held[title]:
        return ''
    wanted = f'{title} is wanted, with folders such as {", ".join(folders[:3])}'
    for other, there in held.items():
        if there:
            return f'--data_dir: {data_dir} looks like {other} (it holds {there[0]}): {wanted}'
    if _plain(data_dir.name) in map(_plain, folders):
        above = data_dir.resolve().parent
        return f'--data_dir: {data_dir} is the folder of one task: give the one above it, {above}'
    for path in sorted(data_dir.iterdir()):
        if path.is_dir() and _folders_of(path, benchmark):
            return f'--data_dir: {data_dir} holds no files of {title}: give {path}'
    return f'--data_dir: {data_dir} holds no files of {title}: {wanted}'


def _folders_of(data_dir, benchmark):
    """The folders in data_dir that hold files of a benchmark, by name."""
    _, endings, folders = BENCHMARKS[benchmark]
    there = [place for name in folders for place in _entries(data_dir, name)]
    return [
        place.name
        for place in there
        if any(path.name.lower().endswith(endings) for path in place.iterdir())
    ]


def _parts(name):
    return (name,) if isinstance(name, str) else name


def _plain(name):
    """'SST-2' and 'sst_2' are one name."""
    return re.sub('[^a-z0-9]', '', name.lower())


def _entries(data_dir, folder):
    """Folders in data_dir of this name, in any case and with any hyphens; '' is data_dir."""
    data_dir = Path(data_dir).expanduser()
    if not data_dir.is_dir():
        return []
    if not folder:
        return [data_dir]
    same = [p for p in data_dir.iterdir() if _plain(p.name) == _plain(folder) and p.is_dir()]
    return sorted(same, key=lambda path: (path.name != folder, path.name))


def _file(folder, name):
    """Path of a file of this name, in any case; None where there is none."""
    path = folder / name
    if path.is_file():
        return path
    if '/' in name:
        return None
    same = [p for p in sorted(folder.iterdir()) if p.name.lower() == name.lower() and p.is_file()]
    return same[0] if same else None
