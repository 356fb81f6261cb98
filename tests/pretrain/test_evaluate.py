import json

import pytest

from pretrain import run_log


def read(call, *flags):
    done = call('evaluate', '--benchmark=text', *flags)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_runs_own_validation_loss_comes_out_again(call, trained, tmp_path):
    workdir, _ = trained
    last = run_log.read_rows(workdir)[-1]
    out = tmp_path / 'scores.json'
    printed = read(call, f'--checkpoint={workdir}', f'--out={out}', '--batch=5')
    scores = json.loads(out.read_text())
    for name in ('loss', 'unigram', 'bits_per_byte', 'accuracy', 'predicted'):
        assert scores[name] == pytest.approx(last[f'validation_{name}'], rel=1e-5), name
    assert f'{scores["bits_per_byte"]:.4f}' in printed
    # Another batch size pads another last batch: the same sums in another order.
    read(call, f'--checkpoint={workdir}', f'--out={out}', '--batch=8')
    assert json.loads(out.read_text())['loss'] == pytest.approx(scores['loss'], rel=1e-6)


def test_any_text_is_scored_whole_with_the_runs_tokenizer(call, trained, text_folder, tmp_path):
    workdir, _ = trained
    text = (text_folder / '0.txt').read_text()
    (tmp_path / 'new.txt').write_text(text)
    out = tmp_path / 'scores.json'
    read(
        call, f'--checkpoint={workdir}', f'--config.data.source=text:{tmp_path / "new.txt"}',
        f'--out={out}',
    )  # fmt: skip
    scores = json.loads(out.read_text())
    from pretrain.data import tokenizer

    ids = tokenizer.load(workdir / 'tokenizer.model').encode(text)
    windows = -(-(len(ids) + 1) // 33)
    assert scores['predicted'] == len(ids) + 1 - windows  # eos counts, a window's first does not
    assert scores['split'] == 'all'
    assert 0 < scores['bits_per_byte'] < 8


def test_a_given_tokenizer_that_is_gone_is_not_asked_for(call, trained, tmp_path):
    """The run's folder holds it."""
    workdir, _ = trained
    gone = f'--config.data.tokenizer={tmp_path / "gone.model"}'
    assert 'loss' in read(call, f'--checkpoint={workdir}', gone)


def test_what_is_wrong_is_said_in_one_line(call_many, trained, tmp_path):
    workdir, _ = trained
    run = f'--checkpoint={workdir}'
    cases = [
        ([run, '--benchmark=txt'], '--benchmark=txt'),
        ([run, '--split=test'], '--split=test'),
        ([run, '--config.data.source=text:/none'], '/none'),
        ([run, '--config.data.sourc=text:/none'], 'did you mean --config.data.source'),
        ([run, '--config.mesh=data=7'], 'data=7'),
        (['--checkpoint=/none'], '/none'),
        ([run, '--step=3'], '3'),
    ]
    results = call_many('evaluate', [c[0] for c in cases], 'checkpoint')
    for (flags, says), (code, _, err) in zip(cases, results):
        said = [line for line in err.splitlines() if line.startswith('error: ')]
        assert code == 2, (flags, err)
        assert len(said) == 1, (flags, err)
        assert says in said[0], (flags, said)
