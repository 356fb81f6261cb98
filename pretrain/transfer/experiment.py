"""One checkpoint on one task: trained with a seed, scored on dev, its test answers kept."""

import contextlib
import functools
import json
import time
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from pretrain import commandline, manifest, restoration
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.model import transformer
from pretrain.transfer import casts, choices, fine_tuned, finetuning, metrics, surgery

PRETRAINED, SCRATCH = 'pretrained', 'scratch'
RESULT = 'result.json'


class Data(NamedTuple):
    """The examples of a task.

    splits: {name of a split: list of Example}; 'train' may be missing where nothing is trained.
    related: {name of another task that this one's model predicts: (Task, list of Example)}: the
    diagnostic sets. digest: of the files' contents.
    """

    splits: dict
    related: dict
    digest: str


class Outcome(NamedTuple):
    """What an experiment gave.

    scores: {split: {metric: value}} of splits with labels, and {task: {...}} of related ones.
    predictions: {split or related task: list}. facts: {name: number or text} on the training.
    params: {'trunk': ..., 'head': ...}; None where nothing was trained.
    """

    scores: dict
    predictions: dict
    facts: dict
    params: dict | None


def part_of(examples, rows):
    """A seeded part of the examples, in their own order: the same for every model and seed.

    Args:
        examples: list. rows: how many; 0, or more than there are: all.
    """
    if not rows or rows >= len(examples):
        return examples
    random = np.random.Generator(np.random.Philox(key=0))
    return [examples[i] for i in np.sort(random.permutation(len(examples))[:rows])]


class Experiment:
    """A checkpoint on a task, for any number of seeds.

    Args:
        source: surgery.Source. task: Task. data: Data. config: of the transfer. mesh: jax Mesh.
        show: whether bars are shown.
    """

    def __init__(self, source, task, data, config, mesh, show=True):
        self.source, self.task, self.data, self.config = source, task, data, config
        self.mesh, self.show = mesh, show
        self.trained = (config.transfer.cast or casts.default_cast(source)) != 'choices'
        if not self.trained:
            if not source.transformer.config.decoder_layers:
                raise UserError(
                    'transfer.cast=choices needs a decoder, and this checkpoint has none: set '
                    'transfer.cast=head'
                )
            return
        if 'train' not in data.splits:
            raise UserError(f'{task.title} has no train split to fine-tune on')
        self.cast = self._make_cast()
        train = part_of(data.splits['train'], config.transfer.train_rows)
        self.rows = self.cast.rows(self._shown(train, 'tokenising train'), True)
        if not self.rows:
            raise UserError(
                f'{task.title}: none of {len(train)} train examples is one to train on in this '
                'cast: give more of them (transfer.train_rows)'
            )
        self.trainer = finetuning.Trainer(self.cast, config, source.tokenizer, mesh)

    @functools.cached_property
    def _stored(self):
        return surgery.read_params(self.source)

    def banner(self):
        """What is about to be done, in a few lines."""
        splits = ', '.join(f'{name} {len(rows):,}' for name, rows in self.data.splits.items())
        lines = [f'{self.task.title}: {splits}']
        if self.trained:
            params, taken = self.start(self.config.seed)
            lines.append(f'{surgery.count(params):,} parameters; {taken}')
        return '\n'.join(lines)

    def start(self, seed, kind=PRETRAINED):
        """The parameters that a seed starts from, and the surgery's Report (None from scratch)."""
        key = jax.random.fold_in(jax.random.key(seed), finetuning.HEAD)
        drawn = casts.draw(self.cast, key)
        if kind == SCRATCH:
            return drawn, None
        stored, stored_head = self._stored
        if stored_head and not fine_tuned.answers_alike(self.source.task, self.task):
            # An output for other answers is a wrong start, of the right shape though it may be.
            shapes = {f'output/{p}': x.shape for p, x in drawn['head'].get('output', {}).items()}
            stored_head = {p: x for p, x in stored_head.items() if shapes.get(p) != x.shape}
        trunk, head, report = surgery.take_over(stored, stored_head, drawn['trunk'], drawn['head'])
        return {'trunk': trunk, 'head': head}, report

    def run(self, seed, kind=PRETRAINED):
        """Trains and answers.

        Args:
            seed: of the head, the order and dropout. kind: PRETRAINED, or SCRATCH: all drawn anew.

        Returns:
            Outcome.
        """
        # What is trained lies on the mesh, and the model lays its activations on it; what only
        # scores choices lies on one device.
        started = self.start(seed, kind) if self.trained else None
        with jax.set_mesh(self.mesh) if self.trained else contextlib.nullcontext():
            return self._run(seed, kind, started)

    def _run(self, seed, kind, started):
        facts = {'seed': seed, 'kind': kind}
        if not self.trained:
            answer, params = self._scored_choices(seed, kind), None
        else:
            params, report = started
            facts |= {'surgery': str(report)} if report else {}
            done = self.trainer.train(params, self.rows, seed, self._bar(f'{kind} seed {seed}'))
            params = done.params
            facts |= {
                'steps': done.steps,
                'steps_per_second': round(done.rate, 3),
                'last_loss': done.loss,
                'padding': round(done.padding, 4),
            }
            answer = functools.partial(self.cast.answer, params)
        began = time.time()
        scores, predictions = {}, {}
        ranked = {}
        for name, task, examples in self._asked():
            predictions[name], beside = answer(
                examples, progress=lambda batches, n=name: self._shown(batches, f'answering {n}')
            )
            if self._is_labelled(examples):
                scores[name] = self._score(task, examples, predictions[name])
                if self.trained and self.cast.head is None:
                    ranked[name] = self._rank(params, task, examples)
            if beside:
                facts.setdefault('answers', {})[name] = beside
        for name, values in ranked.items():
            if values:
                scores[name] |= {f'{k} by rank': v for k, v in values.items()}
        facts['answering_seconds'] = round(time.time() - began, 2)
        return Outcome(scores, predictions, facts, params)

    def write(self, folder, outcome, settings):
        """Stores an outcome: `result.json`, and a JSONL file of predictions for each split.

        The result is written last, so that where there is one the rest is whole.

        Args:
            folder: of the experiment. outcome: Outcome. settings: of settings_of.
        """
        folder = Path(folder)
        for name, _, examples in self._asked():
            with write_whole(folder / f'{name}.jsonl') as file:
                for example, prediction in zip(examples, outcome.predictions[name]):
                    line = self._line(example, prediction)
                    file.write(json.dumps(line, ensure_ascii=False).encode() + b'\n')
        facts = {'task': settings['task'], 'scores': outcome.scores, **outcome.facts}
        with write_whole(folder / RESULT) as file:
            file.write(json.dumps(facts | {'settings': settings}, indent=1).encode())

    def _make_cast(self):
        return casts.make_cast(self.source, self.task, self.config.transfer)

    def _score(self, task, examples, predictions):
        return metrics.score(task, examples, predictions)

    def _is_labelled(self, examples):
        return all(e.label is not None or e.answers for e in examples)

    def _line(self, example, prediction):
        return {'index': example.index, 'prediction': prediction, 'label': example.label}

    def _asked(self):
        """(name, Task, examples) of all that is to be answered."""
        for split, examples in self.data.splits.items():
            if split != 'train':
                yield split, self.task, examples
        for name, (task, examples) in self.data.related.items():
            yield name, task, examples

    def _scored_choices(self, seed, kind):
        train = self.data.splits.get('train', [])
        trunk, params = self._whole_model(seed, kind)
        return functools.partial(
            choices.answer, self.source, trunk, params, self.task, train, self.config.transfer, seed
        )

    def _whole_model(self, seed, kind):
        """The Transformer with its head for the vocabulary, and its parameters."""
        trunk = casts.new_trunk(self.source, self.config.transfer, keep_head=True)
        draw = functools.partial(transformer.init, trunk, jax.random.key(seed))
        if kind == SCRATCH:
            return trunk, draw()
        params, _, _ = surgery.take_over(*self._stored, jax.eval_shape(draw), {})
        return trunk, params

    def _rank(self, params, task, examples):
        if task.kind == 'span':
            return None
        made = casts.rank(
            self.source, self.cast.trunk, params['trunk'], task, examples, self.config.transfer
        )
        return metrics.score(task, examples, made) if made else None

    def _shown(self, items, text):
        """The items under a bar, where they take more than seconds."""
        if not self.show:
            return items
        return tqdm(items, desc=f'{self.task.title} {text}', delay=3, leave=False)

    def _bar(self, text):
        if not self.show:
            return None
        return lambda steps: tqdm(total=steps, desc=f'{self.task.title} {text}', unit='step')


def settings_of(config, source, data, task, seed, kind):
    """What a stored result depends on, as a flat dict that JSON can hold."""
    folder, _ = restoration.find(source.folder)
    sections = ('transfer', 'optimizer', 'squad', 'own')
    flat = commandline.flatten({s: config[s].to_dict() for s in sections if s in config})
    made = {
        'task': task.name,
        'seed': seed,
        'kind': kind,
        'data': data.digest,
        'checkpoint_step': source.step,
        'checkpoint': manifest.item_digest(folder / str(source.step), 'params'),
        **flat,
    }
    return json.loads(json.dumps(made))


def read(folder, settings):
    """The stored result of an experiment; None where there is none yet.

    Raises:
        UserError: it was made with other settings.
    """
    path = Path(folder) / RESULT
    if not path.exists():
        return None
    try:
        facts = json.loads(path.read_text())
        stored = dict(facts['settings'])
        facts['scores']['dev']['score']  # every task has a dev split
    except (ValueError, KeyError, TypeError, AttributeError):
        raise UserError(f'{str(path)!r} is no result: remove it, and it is made again') from None
    differing = [k for k in sorted(stored.keys() | settings) if stored.get(k) != settings.get(k)]
    if differing:
        key = differing[0]
        raise UserError(
            f'{str(path)!r} was made with {key}={stored.get(key)!r}, not {settings.get(key)!r}: '
            'give another --workdir, or remove it'
        )
    return facts


def read_lines(folder, name):
    """What is stored of each example of a split, in their order."""
    path = Path(folder) / f'{name}.jsonl'
    try:
        return [json.loads(line) for line in path.read_text(encoding='utf-8').split('\n') if line]
    except (OSError, ValueError):
        raise UserError(
            f'{str(path)!r} is missing or damaged: remove {RESULT} beside it, and both are made '
            'again'
        ) from None


def read_predictions(folder, name):
    """The stored predictions of a split, in the order of its examples."""
    return [line['prediction'] for line in read_lines(folder, name)]
