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
        (predictions, {'shots': their number, 'likeliest': mean log-probability of the choices}).

    Raises:
        UserError: the model cannot score, or an unknown way to normalise.
    """
    if settings.normalise not in ('', 'none', 'tokens', 'bytes'):
        raise UserError(f'transfer.normalise={settings.normalise!r} is none of none, tokens, bytes')
    normalise = settings.normalise or prompts.normaliser(task)
    texts, starts, asked = [], [], []
    for number, example in enumerate(examples):
        query = prompts.prompt(task, example)
        shots = []
        if settings.shots:
            drawn = prompts.draw_shots(
                train, settings.shots, seed, example, number, settings.shots_per_query
            )
            shots = [prompts.solved(task, shot) for shot in drawn]
        context = prompts.few_shot(shots, query)
        texts += [(context, choice) for choice in query.choices]
        starts += [len(context) - len(query.context)] * len(query.choices)
        asked.append(query)
    model = trunk.config
    limit = encoding.row_length(task, model, settings.length) if settings.length else 0
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
    return predictions, {'shots': settings.shots, 'likeliest': float(np.mean(best))}
