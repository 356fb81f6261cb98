"""SQuAD as a task: the answer is a piece of the context, marked by a head or written out.

An encoder, or a decoder that is fine-tuned, gets a head of two logits a place (BERT, section 4.2);
an encoder-decoder writes the answer (T5, appendix D.15); a decoder without training goes on behind
'Answer:' (Brown et al. 2020, section 3.6).
"""

import functools
import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np

from pretrain.errors import UserError
from pretrain.model import decoding
from pretrain.transfer import (
    answers,
    casts,
    encoding,
    experiment,
    heads,
    rows,
    squad,
    text_to_text,
)
from pretrain.transfer import spans as windows_of
from pretrain.transfer.task import Task

PROMPT = '{context}\nQuestion: {question}\nAnswer:'


def open_task(config, data_dir):
    """The Task and the Data of a version of SQuAD; its examples are squad.Questions.

    Raises:
        UserError: the files are missing or wrong.
    """
    version = config.squad.version
    task = Task(
        name=f'squad_v{version}',
        title=f'SQuAD {version}',
        benchmark='squad',
        kind='span',
        labels=(),
        texts=('question', 'context'),
        metrics=('exact', 'f1'),
        read=lambda folder, split: squad.read(squad.find(folder, version)[split], version),
        length=384,
    )
    found = squad.find(data_dir, version)
    missing = [split for split in ('train', 'dev') if split not in found]
    if missing:
        raise UserError(
            f'--data_dir={str(data_dir)!r} has no {missing[0]}-v{version}.json: is it the folder '
            f'of SQuAD {version}?'
        )
    splits = {}
    for split, path in found.items():
        splits[split] = squad.read(path, version)
        if split == 'train':
            splits[split], left = squad.aligned(splits[split], path)
            if left:
                print(f'{path}: left out {len(left)} questions whose answer is not where it says')
    digest = hashlib.sha256(json.dumps(splits).encode()).hexdigest()
    return task, experiment.Data(splits, {}, digest)


class SquadExperiment(experiment.Experiment):
    """An Experiment whose examples are questions and whose answers are texts."""

    def _make_cast(self):
        if (self.config.transfer.cast or casts.default_cast(self.source)) == 'head':
            return span_cast(self.source, self.task, self.config)
        return casts.make_cast(self.source, self.task, self.config.transfer)

    def _score(self, task, examples, predictions):
        texts = self._texts(examples, predictions)
        null = {q.id: a.null_odds for q, a in zip(examples, predictions) if a.null_odds is not None}
        gold = {q.id: [self._spelt(text) for text, _ in q.answers] for q in examples}
        threshold = self.config.squad.threshold
        found = answers.evaluate(gold, texts, null or None, threshold)
        shares = ('exact', 'f1', 'HasAns_exact', 'HasAns_f1', 'NoAns_exact', 'NoAns_f1')
        shares += ('best_exact', 'best_f1')
        scores = {k: v / 100 if k in shares else v for k, v in found.items()}
        return scores | {'score': scores['f1']}

    def _texts(self, examples, predictions):
        # With null scores the threshold is applied by the report, to the best text of each.
        return {
            q.id: self._spelt(a.text if a.null_odds is None else a.span)
            for q, a in zip(examples, predictions)
        }

    def _spelt(self, text):
        # T5 writes, and is scored, with spaces around punctuation.
        return text_to_text.squad_text(text) if self.trained and self.cast.head is None else text

    def _is_labelled(self, examples):
        return True

    def _line(self, example, prediction):
        return {
            'index': example.id,
            'prediction': prediction.text,
            'null_odds': prediction.null_odds,
            'candidates': [c._asdict() for c in prediction.candidates[:5]],
        }

    def _scored_choices(self, seed, kind):
        trunk, params = self._whole_model(seed, kind)
        return functools.partial(self._continue, trunk, params, seed)

    def _continue(self, trunk, params, seed, examples, progress=iter):
        """Greedy answers behind 'Answer:', up to the end of the line."""
        settings, tokens = self.config.transfer, self.source.tokenizer
        new_tokens = settings.answer_tokens
        train = self.data.splits.get('train', [])
        model = trunk.config
        most = model.max_positions - new_tokens if model.positions == 'learned' else 2**30
        texts = []
        for number, question in enumerate(examples):
            own = number + 1 if settings.shots_per_query else 0
            random = np.random.Generator(np.random.Philox(key=[seed, own]))
            shots = []
            if settings.shots:
                if settings.shots > len(train):
                    raise UserError(f'{settings.shots} shots of {len(train)} training questions')
                drawn = random.permutation(len(train))
                others = [train[i] for i in drawn if train[i].id != question.id]
                for shot in others[: settings.shots]:
                    shots.append(f'{_asked(shot)} {shot.answers[0][0] if shot.answers else ""}')
            text = '\n\n'.join([*shots, _asked(question)])
            texts.append(_last_tokens(tokens, text, most - 1))
        made = []
        for first in progress(range(0, len(texts), settings.eval_batch_size)):
            made += decoding.continue_texts(
                trunk, params, tokens, texts[first : first + settings.eval_batch_size],
                jax.random.key(seed), new_tokens=new_tokens,
                prompt=self.source.objective.prompt or 'causal',
            )  # fmt: skip
        told = [text.strip().partition('\n')[0].strip() for text in made]
        return [windows_of.Answer(text, text, [], None) for text in told], {}


def _last_tokens(tokens, text, room):
    """The end of a text that has so many tokens at most: the beginning goes, the question stays.

    Cut inside a character that is spelt in bytes, a text has more tokens than were left of it.
    """
    ids = tokens.encode(text)
    first = max(len(ids) - room, 0)
    while first and len(tokens.encode(text)) > room:
        text, first = tokens.decode(ids[first:]), first + 1
    return text


def _asked(question):
    return PROMPT.format(context=question.context, question=question.question)


def span_cast(source, task, config):
    """The casts.Cast with a head for spans.

    Args:
        source: surgery.Source. task: Task. config: with the sections `transfer` and `squad`.
    """
    settings, section = config.transfer, config.squad
    model = source.transformer.config
    trunk, head = casts.new_trunk(source, settings), heads.SpanHead()
    length = encoding.row_length(task, model, settings.length)
    types = model.segment_types > 1
    prefix = source.prefix
    tokens = source.tokenizer

    def windows(questions, training):
        return windows_of.windows(
            tokens, questions, length, section.stride, section.question_length, training
        )

    def make_rows(questions, training):
        return [_row(window, types) for window in windows(questions, training)]

    def hidden(params, batch, key=None):
        rngs = None if key is None else {'dropout': key}
        return trunk.apply(
            {'params': params}, batch.inputs, deterministic=key is None, rngs=rngs, method='hidden'
        )

    def outputs(params, batch):
        return head.apply({'params': params['head']}, hidden(params['trunk'], batch))

    def loss(params, batch, key):
        logits_BxLx2 = head.apply({'params': params['head']}, hidden(params['trunk'], batch, key))
        total, weight = windows_of.span_loss(
            logits_BxLx2[..., 0], logits_BxLx2[..., 1],
            batch.spans_BxSx2[:, 0, 0], batch.spans_BxSx2[:, 0, 1],
            batch.weights_B, batch.lengths_B,
        )  # fmt: skip
        return total / jnp.maximum(weight, 1)

    def padded(params, batch):
        logits_BxLx2 = outputs(params, batch)
        return jnp.pad(logits_BxLx2, ((0, 0), (0, length - logits_BxLx2.shape[1]), (0, 0)))

    jitted = jax.jit(padded)

    def answer(params, questions, progress=iter):
        made = windows(questions, False)
        logits_RxLx2 = casts.run_rows(
            functools.partial(jitted, params), [_row(w, types) for w in made], settings, 1, tokens,
            prefix, progress,
        )  # fmt: skip
        return windows_of.best_answers(
            made, list(logits_RxLx2[..., 0]), list(logits_RxLx2[..., 1]), questions,
            n_best=section.best, longest=section.answer_length,
            null=section.version == '2.0', threshold=section.threshold,
        ), {}  # fmt: skip

    return casts.Cast(trunk, head, 1, prefix, make_rows, loss, outputs, hidden, False, answer)


def _row(window, types):
    span = np.array([[window.start, window.end]], np.int32)
    return rows.Row(window.ids_L, window.types_L if types else None, window.question, 0, span)
