"""Fine-tunes a checkpoint on one task and scores it.

    python -m pretrain.finetune --config=configs/glue.py:sst2 --checkpoint=runs/bert-tiny \\
        --data_dir=DATA --workdir=runs/bert-tiny-sst2

The checkpoint is any run: pretrained here, converted, or fine-tuned on another task. The workdir
gets the scores (result.json), the answers to dev and test, and, in `model/`, the fine-tuned model
as a run of its own, unless --nosave. `pretrain.evaluate` runs all tasks of a benchmark with several
seeds.
"""


from absl import flags

from pretrain import assembly, commandline, meshes, run_folder, storage
from pretrain.data.shards import write_whole
from pretrain.errors import UserError
from pretrain.transfer import experiment, fine_tuned, settings, sources, surgery

CONFIG = commandline.define_config()
CHECKPOINT = flags.DEFINE_string('checkpoint', None, 'Folder of a run.', required=True)
STEP = flags.DEFINE_integer('step', None, 'Of the checkpoint; default: the newest whole one.')
DATA_DIR = flags.DEFINE_string('data_dir', None, 'Folder of the official files.', required=True)
WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of the results.', required=True)
SAVE = flags.DEFINE_bool('save', True, 'Keep the fine-tuned parameters.')


def main(argv):
    """Reads, trains, answers, writes: in this order, mistakes first."""
    if len(argv) > 1:
        raise UserError(f'unknown argument {argv[1]!r}')
    config, workdir = CONFIG.value, storage.local(WORKDIR.value, '--workdir')
    if config is None or 'transfer' not in config:
        raise UserError('--config is no config of a task: for example configs/glue.py:sst2')
    if not config.task:
        raise UserError(f'--config names no task: for example configs/{config.benchmark}.py:TASK')
    config = settings.for_task(config, config.task)
    settings.check(config)
    if run_folder.has_checkpoints(workdir):
        raise UserError(f'--workdir: {str(workdir)!r} holds a run: give another folder')
    assembly.use_compilation_cache(config.cache)
    mesh = meshes.make_mesh(config.mesh)
    run = commandline.read_run_config(CHECKPOINT.value)
    source = surgery.open_source(CHECKPOINT.value, run, STEP.value)
    task, data = sources.open_task(config, DATA_DIR.value)
    needed = experiment.settings_of(config, source, data, task, config.seed, 'pretrained')
    for path in (workdir / f'{name}.jsonl' for name in (*data.splits, *data.related)):
        if path.is_dir():
            raise UserError(f'--workdir: {str(path)!r} is a folder and should be a file: remove it')
    lock = run_folder.lock(workdir)
    facts = experiment.read(workdir, needed)
    # A result whose model was not kept is made again where the model is asked for.
    unsaved = SAVE.value and facts and 'steps' in facts and not (workdir / 'model').exists()
    if facts is None or unsaved:
        fine_tuned.clear(workdir / 'model')
        made = sources.open_experiment(source, task, data, config, mesh)
        print(made.banner())
        outcome = made.run(config.seed)
        if SAVE.value and outcome.params:
            fine_tuned.write(workdir / 'model', source, task, outcome.params)
        with write_whole(workdir / 'config.json') as file:
            file.write(config.to_json(indent=2).encode())
        made.write(workdir, outcome, needed)
        facts = experiment.read(workdir, needed)
    lock.close()
    for split, scores in facts['scores'].items():
        shown = ', '.join(f'{name} {value:.4f}' for name, value in scores.items())
        print(f'{task.title} {split}: {shown}')
    print(f'wrote {workdir}')


if __name__ == '__main__':
    commandline.run(main)
