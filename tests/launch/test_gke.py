"""Each subcommand as a user calls it, with a kubectl that writes down what it is told."""

import yaml

RUN = ['run', 'gpt2', '--image=registry/image:1', '--accelerator=tpu-v5-lite-podslice']
TRAINING = ['--', 'pretrain.train', '--config=configs/gpt.py:tiny', '--workdir=gs://bucket/gpt2']


def test_a_run_is_applied(launch, cluster):
    code, out, err = launch(
        'gke', *RUN, '--topology=4x4', '--slices=2', '--namespace=team', '--context=far', *TRAINING
    )
    assert code == 0, err
    asked, applied = cluster.calls('kubectl')
    place = ['--context=far', '--namespace=team']
    assert asked[1] == ['get', 'jobset', 'gpt2', '--ignore-not-found', '--output=name', *place]
    assert applied[1] == ['apply', '--filename=-', *place]
    tree = yaml.safe_load(applied[2])
    assert tree['metadata']['name'] == 'gpt2'
    (group,) = tree['spec']['replicatedJobs']
    assert (group['replicas'], group['template']['spec']['parallelism']) == (2, 4)
    command = group['template']['spec']['template']['spec']['containers'][0]['command']
    assert command == ['python', '-m', 'pretrain.train', '--distributed', *TRAINING[2:]]
    assert 'python -m launch.gke delete gpt2 --context=far --namespace=team' in out


def test_a_pool_of_gpus_with_a_volume(launch, cluster):
    code, _, err = launch(
        'gke', 'run', 'gpt2', '--image=i', '--accelerator=nvidia-h100-80gb', '--nodes=2',
        '--shared_volume=runs:/runs', '--spot', *TRAINING[:-1], '--workdir=/runs/gpt2',
    )  # fmt: skip
    assert code == 0, err
    tree = yaml.safe_load(cluster.calls('kubectl')[-1][2])
    assert tree['spec']['replicatedJobs'][0]['template']['spec']['parallelism'] == 2


def test_a_dry_run_prints_the_manifest(launch, cluster):
    code, out, err = launch('gke', *RUN, '--topology=4x4', '--dry_run', *TRAINING, PATH='')
    assert code == 0, err
    assert cluster.calls() == []
    manifest = out[out.index('apiVersion') :].split('\n\n')[0]
    assert yaml.safe_load(manifest)['kind'] == 'JobSet'


def test_status_logs_and_delete(launch, cluster):
    cluster.answer('get jobset gpt2 --ignore-not-found', 'jobset.jobset.x-k8s.io/gpt2\n')
    cluster.answer('get pods', 'gpt2-slice-0-0 Running\n')
    cluster.answer('kubectl logs', 'step 1\n')
    code, out, err = launch('gke', 'status', 'gpt2')
    assert (code, 'gpt2-slice-0-0 Running' in out) == (0, True), err
    code, out, err = launch('gke', 'logs', 'gpt2')
    assert (code, 'step 1' in out) == (0, True), err
    selector = '--selector=jobset.sigs.k8s.io/jobset-name=gpt2'
    number = 'jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0'
    assert cluster.calls('kubectl')[-1][1][1] == f'{selector},{number}'
    launch('gke', 'logs', 'gpt2', '--worker=all')
    assert cluster.calls('kubectl')[-1][1][1] == selector
    code, _, err = launch('gke', 'delete', 'gpt2')
    assert code == 0, err
    assert cluster.calls('kubectl')[-1][1] == ['delete', 'jobset', 'gpt2']
    for action in ('status', 'logs', 'delete'):
        code, out, err = launch('gke', action, 'gpt2', '--dry_run', PATH='')
        assert (code, 'kubectl' in out) == (0, True), err


def test_what_is_wrong_is_said_in_one_line(refused, cluster):
    run = [*RUN, '--topology=4x4']
    local = [*TRAINING[:-1], '--workdir=runs/gpt2']
    volumes = ['--shared_volume=runs:/runs']
    gpu = ['run', 'gpt2', '--image=i', '--accelerator=nvidia-h100-80gb']
    cases = [
        ([], 'say what to do: one of run'),
        (['runs', 'gpt2'], 'did you mean run?'),
        (['run'], 'the name of the run is missing'),
        (['run', 'GPT', *TRAINING], "='GPT' must be small letters"),
        ([*run], 'what is to run is missing'),
        ([*RUN, *TRAINING], '--topology is missing'),
        ([*run[:2], *run[3:], *TRAINING], '--image is missing'),
        (['run', 'gpt2', '--image=i', *TRAINING], '--accelerator is missing'),
        ([*run, '--accelerator=tpu-v5p', *TRAINING], 'did you mean tpu-v5p-slice?'),
        ([*run, '--topology=4x4x4', *TRAINING], 'which has 2 axes'),
        ([*run, '--slices=0', *TRAINING], '--slices=0 must be at least 1'),
        ([*run, *local], '--workdir=runs/gpt2 is a folder inside a pod'),
        ([*run, '--shared_volume=runs:/data', *local], 'is a folder inside a pod'),
        ([*run, '--shared_volume=runs', *local], "--shared_volume='runs' is not CLAIM:/path"),
        ([*gpu, '--topology=4x4', *TRAINING], 'which takes --nodes and --gpus_per'),
        ([*gpu, '--chips_per_node=4', *TRAINING], '--chips_per_node=4 is not for nvidia-h100'),
        ([*run, '--nodes=4', *TRAINING], '--nodes=4 is not for tpu-v5-lite-podslice'),
        ([*run, '--gpus_per_node=8', *TRAINING], 'which takes --topology and --slices'),
        ([*run, *volumes, '--shared_volume=runs:/b', *local], "='runs:/b': its claim or"),
        ([*run, *volumes, '--shared_volume=b:/runs', *local], "='b:/runs': its claim or"),
        ([*run, *volumes, *TRAINING[:-1], '--workdir=/runs/../x'], 'is a folder inside a pod'),
        (['run', 'gpt2', *TRAINING[1:]], 'write -- before pretrain.train'),
        ([*gpu, '--slices=2', *TRAINING], '--slices=2 is for TPUs'),
        ([*run, '--', 'pretrain.finetune', '--config=c', '--workdir=/x'], 'runs in one process'),
        ([*run, '--', 'pretrain.finetune', *TRAINING[2:]], 'writes to a folder'),
        ([*run, '--', 'pretrain.train', '--config=c', '--workdir=s3://b/x'], 'or gs://BUCKET'),
        (['status', 'gpt2'], "there is no run 'gpt2'"),
        (['logs', 'gpt2'], "there is no run 'gpt2'"),
        (['delete', 'gpt2', *TRAINING], 'delete takes no command behind --'),
        (['delete', 'gpt2', 'gpt3'], "unknown argument 'gpt3'"),
    ]
    refused('gke', cases)
    cluster.answer('get jobset', 'jobset.jobset.x-k8s.io/gpt2\n')
    refused('gke', [([*run, *TRAINING], "a run 'gpt2' is there already")])
    refused('gke', [(['logs', 'gpt2', '--worker=first'], "--worker='first' is neither")])
    cluster.answer('kubectl logs', code=1, error='no such pod\n')
    refused('gke', [(['logs', 'gpt2'], 'kubectl logs ended with exit code 1')])
    cluster.answer('get jobset', code=1, error='error: You must be logged in\n')
    refused('gke', [([*run, *TRAINING], 'You must be logged in')])
    refused('gke', [([*run, *TRAINING], "'kubectl' is not on PATH")], PATH='')
