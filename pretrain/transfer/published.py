"""Scores that papers report, to stand beside one's own, each with its source.

All are recalled from the papers' tables and not run here. Test scores are those of the benchmark's
server, from models with far more pretraining than a small run; a row of dev scores is marked so.
"""

from typing import NamedTuple


class Published(NamedTuple):
    """A row of a paper's table.

    model, source: as cited. split: 'test' or 'dev'. scores: {task: {metric: value}}, in percent.
    average: that of the paper, over the tasks named in `rule`; None, and '', where it has none.
    """

    model: str
    source: str
    split: str
    scores: dict
    average: float | None = None
    rule: str = ''


def _glue(cola, sst2, mrpc, stsb, qqp, mnli, mismatched, qnli, rte):
    """BERT's table: F1 of MRPC and QQP, Spearman of STS-B."""
    return {
        'cola': {'matthews': cola},
        'sst2': {'accuracy': sst2},
        'mrpc': {'f1': mrpc},
        'stsb': {'spearman': stsb},
        'qqp': {'f1': qqp},
        'mnli': {'accuracy': mnli, 'accuracy_mismatched': mismatched},
        'qnli': {'accuracy': qnli},
        'rte': {'accuracy': rte},
    }


_BERT = 'Devlin et al. 2019, table 1'
_NO_WNLI = 'mean of nine columns (MNLI has two), without WNLI'
_SUPERGLUE = 'Wang et al. 2019 (SuperGLUE), table 3'

PUBLISHED = {
    'glue': (
        Published(
            'BiLSTM + ELMo', _BERT, 'test',
            _glue(36.0, 90.4, 84.9, 73.3, 64.8, 76.4, 76.1, 79.8, 56.8), 71.0, _NO_WNLI,
        ),
        Published(
            'GPT', _BERT, 'test',
            _glue(45.4, 91.3, 82.3, 80.0, 70.3, 82.1, 81.4, 87.4, 56.0), 75.1, _NO_WNLI,
        ),
        Published(
            'BERT base', _BERT, 'test',
            _glue(52.1, 93.5, 88.9, 85.8, 71.2, 84.6, 83.4, 90.5, 66.4), 79.6, _NO_WNLI,
        ),
        Published(
            'BERT large', _BERT, 'test',
            _glue(60.5, 94.9, 89.3, 86.5, 72.1, 86.7, 85.9, 92.7, 70.1), 82.1, _NO_WNLI,
        ),
    ),
    'superglue': (
        Published(
            'most frequent', _SUPERGLUE, 'test',
            {
                'boolq': {'accuracy': 62.3}, 'cb': {'macro_f1': 21.7, 'accuracy': 48.4},
                'copa': {'accuracy': 50.0}, 'multirc': {'f1a': 61.1, 'exact_groups': 0.3},
                'record': {'token_f1': 33.4, 'token_exact': 32.5}, 'rte': {'accuracy': 50.3},
                'wic': {'accuracy': 50.0}, 'wsc': {'accuracy': 65.1},
            },
            47.1, 'mean of eight tasks',
        ),
        Published(
            'BERT large', _SUPERGLUE, 'test',
            {
                'boolq': {'accuracy': 77.4}, 'cb': {'macro_f1': 75.7, 'accuracy': 83.6},
                'copa': {'accuracy': 70.6}, 'multirc': {'f1a': 70.0, 'exact_groups': 24.1},
                'record': {'token_f1': 72.0, 'token_exact': 71.3}, 'rte': {'accuracy': 71.7},
                'wic': {'accuracy': 69.6}, 'wsc': {'accuracy': 64.4},
            },
            69.0, 'mean of eight tasks',
        ),
    ),
    'snli': (
        Published(
            'ESIM + ELMo', 'Peters et al. 2018, table 1', 'test', {'snli': {'accuracy': 88.7}}
        ),
        Published('GPT', 'Radford et al. 2018, table 2', 'test', {'snli': {'accuracy': 89.9}}),
    ),
    'squad': (
        Published(
            'DistilBERT', 'Sanh et al. 2019, table 2', 'dev',
            {'squad_v1.1': {'exact': 77.7, 'f1': 85.8}},
        ),
        Published(
            'BERT base', 'Devlin et al. 2019, table 2', 'dev',
            {'squad_v1.1': {'exact': 80.8, 'f1': 88.5}},
        ),
        Published(
            'BERT large', 'Devlin et al. 2019, tables 2 and 3', 'dev',
            {'squad_v1.1': {'exact': 84.1, 'f1': 90.9}, 'squad_v2.0': {'exact': 78.7, 'f1': 81.9}},
        ),
    ),
}  # fmt: skip
