import random
import shutil

from pretrain.data import tokenizer


def test_prompts_are_continued_the_same_way_each_time(call, trained, tmp_path):
    workdir, _ = trained
    prompts = tmp_path / 'prompts.txt'
    prompts.write_text('Kalo mi\nTer\n')
    flags = [f'--checkpoint={workdir}', '--tokens=12', '--top_k=10', '--top_p=0.9']
    one, again, other = (
        call('generate', *flags, f'--prompts_file={prompts}', f'--seed={seed}')
        for seed in (0, 0, 1)
    )
    assert one.returncode == 0, one.stderr
    assert [line[:3] for line in one.stdout.splitlines() if line[:3] in ('Kal', 'Ter')] == [
        'Kal',
        'Ter',
    ]
    assert one.stdout == again.stdout
    assert one.stdout != other.stdout


def test_greedy_needs_no_seed(call, trained):
    workdir, _ = trained
    flags = [f'--checkpoint={workdir}', '--prompt=', '--temperature=0', '--tokens=8']
    one, other = (call('generate', *flags, f'--seed={seed}').stdout for seed in (0, 1))
    assert one
    assert one == other


def test_another_tokenizer_in_the_runs_folder_is_refused(call, trained, tmp_path):
    copy = shutil.copytree(trained[0], tmp_path / 'run')
    words = ['ripe', 'chill', 'cold', 'vine', 'house', 'fallen']
    texts = [' '.join(random.Random(i).choices(words, k=9)) for i in range(99)]
    other = tokenizer.train(texts, 290)
    (copy / 'tokenizer.model').write_bytes(other.model)
    done = call('generate', f'--checkpoint={copy}', '--prompt=x')
    assert done.returncode == 2
    assert 'is not the one that its checkpoint was trained with' in done.stderr


def test_what_is_wrong_is_said_in_one_line(call_many, trained, tmp_path):
    workdir, _ = trained
    run = f'--checkpoint={workdir}'
    empty = tmp_path / 'none.txt'
    empty.write_text('')
    cases = [
        (['--checkpoint=/no/run', '--prompt=x'], '/no/run'),
        ([f'--checkpoint={tmp_path}', '--prompt=x'], 'holds no run'),
        ([run], 'give either --prompt=TEXT or --prompts_file=FILE'),
        ([run, '--prompt=x', f'--prompts_file={empty}'], 'give either'),
        ([run, f'--prompts_file={empty}'], 'is empty'),
        ([run, f'--prompts_file={tmp_path}/no.txt'], 'no.txt'),
        ([run, '--prompt=x', '--tokens=0'], '--tokens=0'),
        ([run, '--prompt=x', '--top_p=1.5'], '--top_p=1.5'),
        ([run, '--prompt=x', '--temperature=-1'], '--temperature=-1'),
        ([run, '--prompt=x', '--tokens=1000'], 'are more than the'),
        ([run, '--prompt=x', '--step=7'], '7'),
        ([run, 'x'], "unknown argument 'x'"),
    ]
    for (flags, says), (code, _, err) in zip(cases, call_many('generate', [c[0] for c in cases])):
        said = [line for line in err.splitlines() if line.startswith('error: ')]
        assert code == 2, (flags, err)
        assert len(said) == 1, (flags, err)
        assert says in said[0], (flags, said)
