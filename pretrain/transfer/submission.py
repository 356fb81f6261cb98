"""The files that the servers of GLUE, SuperGLUE and SQuAD take, and the zips of them.

The same predictions give the same bytes on every machine: fixed order, fixed times inside the zip,
nothing compressed (the largest submission is a few megabytes).
"""

import io
import json
import math
import zipfile
from pathlib import Path
from typing import NamedTuple

from pretrain.data.shards import write_whole
from pretrain.errors import UserError

# {benchmark: {file: rows of the test set}}, in the order that they are written; of MultiRC the
# rows are answers. Names: the submission scripts of jiant and T5, which agree.
FILES = {
    'glue': {
        'CoLA.tsv': 1063,
        'SST-2.tsv': 1821,
        'MRPC.tsv': 1725,
        'STS-B.tsv': 1379,
        'MNLI-m.tsv': 9796,
        'MNLI-mm.tsv': 9847,
        'QNLI.tsv': 5463,
        'QQP.tsv': 390_965,
        'RTE.tsv': 3000,
        'WNLI.tsv': 146,
        'AX.tsv': 1104,
    },
    'superglue': {
        'BoolQ.jsonl': 3245,
        'CB.jsonl': 250,
        'COPA.jsonl': 500,
        'MultiRC.jsonl': 9693,
        'ReCoRD.jsonl': 10_000,
        'RTE.jsonl': 3000,
        'WiC.jsonl': 1400,
        'WSC.jsonl': 146,
        'AX-b.jsonl': 1104,
        'AX-g.jsonl': 356,
    },
}
# One task, two test sets.
MISMATCHED = {'MNLI-m.tsv': 'MNLI-mm.tsv', 'MNLI-mm.tsv': 'MNLI-mm.tsv'}


class Submission(NamedTuple):
    """What was written.

    path: the zip; None where there was nothing to put in it. remarks: lines for the user on what a
    server will not like: missing files, missing rows, predictions that were no labels.
    """

    path: Path | None
    remarks: list[str]


def write(folder, benchmark: str, predicted: dict) -> Submission:
    """Write a benchmark's submission: its files and, beside them, `<benchmark>.zip` of them all.

    Args:
      folder: where to; made if it is not there.
      benchmark: 'glue' or 'superglue'.
      predicted: {name of the task: (task, examples of the test split, predictions)}. The mismatched
        set of MNLI is 'mnli_mismatched', with the same task. A prediction that is no label becomes
        `task.labels[0]`; a number is cut to [task.low, task.high].

    Returns:
      A Submission. Tasks without examples are left out, and named in its remarks.

    Raises:
      UserError: a benchmark or a task that no server takes; a row that is predicted twice.
    """
    if benchmark not in FILES:
        raise UserError(f'no server takes {benchmark!r}: one of {", ".join(FILES)}')
    wanted = FILES[benchmark]
    given = {}
    for name, (task, examples, predictions) in predicted.items():
        file = MISMATCHED.get(task.file) if name.endswith('_mismatched') else task.file
        if file not in wanted or file in given:
            raise UserError(
                f'task {name!r} would be {file or "no file"!r} of {benchmark}: give each of '
                f'{", ".join(wanted)} once at most'
            )
        if len(examples) != len(predictions):
            raise ValueError(f'{name}: {len(examples)} examples, {len(predictions)} predictions')
        if len(examples):
            given[file] = (task, examples, predictions)

    contents, remarks = {}, []
    for file in wanted:
        if file in given:
            contents[file], said = _content(file, *given[file], wanted[file])
            remarks += said
    missing = [file for file in wanted if file not in given]
    if missing:
        remarks.append(f'no test predictions for {", ".join(missing)}: the server wants every file')
    folder = Path(folder)
    for name in (*missing, f'{benchmark}.zip'):  # of an earlier call, with other tasks
        (folder / name).unlink(missing_ok=True)
    if not contents:
        return Submission(None, remarks)

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, 'w') as archive:
        for file, content in contents.items():
            _write(folder / file, content)
            entry = zipfile.ZipInfo(file, date_time=(1980, 1, 1, 0, 0, 0))
            entry.create_system = 3  # Unix, whatever system this one is
            entry.external_attr = 0o644 << 16
            archive.writestr(entry, content)
    path = folder / f'{benchmark}.zip'
    _write(path, packed.getvalue())
    return Submission(path, remarks)


def write_squad(folder, predictions: dict, null_odds: dict | None = None) -> list[Path]:
    """Write SQuAD's `predictions.json` and, of version 2.0, `null_odds.json`.

    Args:
      folder: where to; made if it is not there.
      predictions: {question id: text}, '' for 'no answer'.
      null_odds: {question id: score}, higher where 'no answer' is likelier; None for version 1.1.

    Returns:
      The paths of the files.
    """
    paths = []
    for name, values in (('predictions.json', predictions), ('null_odds.json', null_odds)):
        if values is not None:
            text = json.dumps(values, indent=0, sort_keys=True)
            paths.append(_write(Path(folder) / name, f'{text}\n'.encode()))
    return paths


def read_back(path) -> dict:
    """What a submission's zip says.

    Args:
      path: of the zip.

    Returns:
      {name of the file: rows}, in the zip's order: (index, prediction) of a .tsv, the objects of a
      .jsonl.

    Raises:
      UserError: a .tsv without the header.
    """
    files = {}
    with zipfile.ZipFile(path) as archive:
        for name in archive.namelist():
            lines = archive.read(name).decode().splitlines()
            if name.endswith('.jsonl'):
                files[name] = [json.loads(line) for line in lines]
                continue
            if lines[:1] != ['index\tprediction']:
                raise UserError(f'{path}: {name} begins with {lines[:1]}, not index, prediction')
            rows = [line.split('\t') for line in lines[1:]]
            files[name] = [(int(index), prediction) for index, prediction in rows]
    return files


def _content(file, task, examples, predictions, rows):
    """A file's bytes, and remarks on it."""
    made, strange = {}, 0
    for example, prediction in zip(examples, predictions):
        if example.index in made:
            raise UserError(f'{task.title}: row {example.index} is predicted twice; give it once')
        made[example.index], known = _answer(task, prediction)
        strange += not known
    made = dict(sorted(made.items()))
    remarks = []
    if strange:
        instead = task.low if task.kind == 'number' else task.labels[0]
        remarks.append(f'{file}: {strange} predictions were no answer; {instead!r} stands instead')
    counts_from_zero = file.endswith('.jsonl') or list(made) == list(range(len(made)))
    if len(made) != rows or not counts_from_zero:
        remarks.append(f'{file}: {len(made)} rows, where the test set has {rows} from 0 on')
    if file.endswith('.tsv'):
        lines = ['index\tprediction', *(f'{index}\t{answer}' for index, answer in made.items())]
    elif file == 'MultiRC.jsonl':
        lines = [json.dumps(passage) for passage in _passages(made)]
    else:
        lines = [json.dumps({'idx': idx, 'label': answer}) for idx, answer in made.items()]
    return ''.join(f'{line}\n' for line in lines).encode(), remarks


def _answer(task, prediction):
    """A prediction as the server reads it, and whether it was an answer at all."""
    if task.kind == 'number':
        known = math.isfinite(prediction)
        # 0.0 first: of -0.0 and 0.0 max takes the first.
        return f'{min(max(task.low, prediction), task.high) if known else task.low:.3f}', known
    if task.kind == 'entity':
        return prediction, True
    known = prediction in task.labels
    label = prediction if known else task.labels[0]
    return task.submitted.get(label, task.spellings.get(label, label)), known


def _passages(made):
    """Answers by (passage, question, answer), sorted, as MultiRC's nested lines, one a passage."""
    passages = {}
    for (passage, question, answer), label in made.items():
        answers = passages.setdefault(passage, {}).setdefault(question, [])
        answers.append({'idx': answer, 'label': label})
    for passage, questions in passages.items():
        listed = [{'idx': question, 'answers': said} for question, said in questions.items()]
        yield {'idx': passage, 'passage': {'questions': listed}}


def _write(path, content):
    with write_whole(path) as file:
        file.write(content)
    return path
