"""Tasks without training: which choice a language model finds likeliest behind a question.

Zero solved examples before the question, or K drawn from the train split (Brown et al. 2020,
section 2).
"""

import numpy as np

from pretrain.errors import UserError
from pretrain.transfer import encoding, prompts, scoring


def answer(source, trunk, params, task, train, settings, seed, examples, progress=iter):
    """Answers by scoring every choice behind its question.

    Args:
        source: surgery.Source. trunk: Transformer with its head for the vocabulary.
        params: of the trunk. task: Task. train: list of Example that shots are drawn from.
        settings: the section `transfer`: shots, shots_per_query, normalise, eval_batch_size,
            length. seed: of the shots. examples: list of Example. progress: see scoring.score.

    Returns:
        (predictions, facts): `shots`, their number; `likeliest`, the mean log-probability of what
        was chosen; `cut_queries`, how many were too long for the model even without shots.

    Raises:
        UserError: the model cannot score, or an unknown way to normalise.
    """
    if settings.normalise not in ('', 'none', 'tokens', 'bytes'):
        raise UserError(f'transfer.normalise={settings.normalise!r} is none of none, tokens, bytes')
    normalise = settings.normalise or prompts.normaliser(task)
    model = trunk.config
    limit = encoding.row_length(task, model, settings.length) if settings.length else 0
    if not limit and model.positions == 'learned':
        limit = model.max_positions
    texts, starts, asked, cut = [], [], [], 0
    for number, example in enumerate(examples):
        query = prompts.prompt(task, example)
        shots = []
        if settings.shots:
            drawn = prompts.draw_shots(
                train, settings.shots, seed, example, number, settings.shots_per_query
            )
            shots = [prompts.solved(task, shot) for shot in drawn]
        context = prompts.few_shot(shots, query)
        start = len(context) - len(query.context)
        if limit and _longest(source.tokenizer, query) > limit:
            # It alone is too long: what it loses is its own beginning, a passage's as a rule.
            context, start, cut = query.context, None, cut + 1
        texts += [(context, choice) for choice in query.choices]
        starts += [start] * len(query.choices)
        asked.append(query)
    scored = scoring.score(
        trunk, params, source.tokenizer, texts, batch=settings.eval_batch_size,
        prompt=source.objective.prompt or 'causal', query_starts=starts, max_length=limit,
        progress=progress,
    )  # fmt: skip
    predictions, best, at = [], [], 0
    for query, example in zip(asked, examples):
        own = scored[at : at + len(query.choices)]
        at += len(query.choices)
        chosen = scoring.pick(own, normalise)
        best.append(own[chosen].log_prob)
        if task.kind == 'number':
            predictions.append(scoring.expected(own, query.values))
        elif task.kind == 'entity':
            predictions.append(example.choices[chosen])
        else:
            predictions.append(task.labels[chosen])
    facts = {'shots': settings.shots, 'likeliest': float(np.mean(best)), 'cut_queries': cut}
    return predictions, facts


def _longest(tokens, query):
    """Tokens of a query with its longest choice, and one that may stand before them."""
    return 1 + max(len(tokens.encode(query.context + choice)) for choice in query.choices)
