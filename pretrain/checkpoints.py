"""Checkpoints of a run: saved in the background, proved whole, restored onto any mesh.

A step's folder holds four items that can be read apart: `params` (the parameters), `optimizer`
(the rest of the train state), `progress` and `config` (JSON), beside `manifest.json`, the sha256 of
every file. The manifest is written after all processes have written their files and before the
folder takes its final name. So a step that agrees with its manifest is whole, older steps are
deleted only after that, and no kill leaves a step that restores wrongly. On gs://, where
no folder can be renamed, a folder counts as a step once the manifest is in it.
"""

import contextlib
import errno
import math
import os
import shutil
import signal
import sys
import threading
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from pretrain import manifest, restoration, storage
from pretrain.errors import UserError
from pretrain.restoration import newest_whole, read_config, restore_params, whole_steps

__all__ = ['Checkpoints', 'newest_whole', 'read_config', 'restore_params', 'whole_steps']

_UNFINISHED = '.orbax-checkpoint-tmp'
_DELETED = 'deleted'


class Checkpoints:
    """The checkpoints of one run, for the process that trains it.

    Used as a context manager, or closed by `close`, so that a save in flight is finished. In a run
    of several processes every process makes every call, in the same order; the folder is shared.
    """

    def __init__(self, directory: str | Path, config: dict, keep: int = 2):
        """Opens the folder and removes what an interrupted save left there.

        Args:
          directory: the folder of checkpoints; made when missing.
          config: the resolved config, saved in every checkpoint; JSON-able.
          keep: how many of the newest checkpoints to keep; the one with the lowest validation loss
            is kept besides.

        Raises:
          UserError: the folder cannot be made, or `keep` is below 1.
        """
        if keep < 1:
            raise UserError(f'checkpoint.keep is {keep}: keep at least 1')
        _hide_closed_loops()
        self._directory = storage.place(directory)
        self._remote = storage.is_remote(directory)
        if not self._remote:
            self._directory = self._directory.absolute()
        self._config = config
        self._keep = keep
        self._orbax = None
        self._saving = None
        self._whole = None
        self._damaged = []
        self._signal = None
        if jax.process_index() == 0:
            try:
                if not self._remote:  # there are no folders there
                    self._directory.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise UserError(
                    f'cannot write checkpoints to {directory}: {error.strerror}'
                ) from error
            self._remove_leftovers()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            self.close()
        except UserError as unsaved:
            if error is None:
                raise
            # The error that stopped the run must reach the user, not the one that followed it.
            print(f'error: {unsaved}', file=sys.stderr)

    def save(self, state, step: int, progress: dict, validation_loss: float | None = None) -> None:
        """Starts a checkpoint in the background; returns once the arrays are copied.

        A step that is already there and whole is left as it is; a damaged one is moved aside.

        Args:
          state: the train state: {'params': ..., and the rest}, global jax Arrays.
          step: the number of finished steps.
          progress: what a resumed run needs besides the state; JSON-able.
          validation_loss: ranks this checkpoint; None, or not finite, never counts as the best.

        Raises:
          UserError: this checkpoint or the one before it could not be written.
        """
        self.wait()
        ranked = validation_loss is not None and math.isfinite(validation_loss)
        rest = {name: part for name, part in state.items() if name != 'params'}
        with self._storage_errors(step):
            self._open()
            if step in self._orbax.all_steps():
                if self._agreed_whole(step):
                    return
                self._shut()
                self._damaged.append(step)
                self._open()
            self._saving = step
            self._orbax.save(
                step,
                args=ocp.args.Composite(
                    params=ocp.args.StandardSave(state['params']),
                    optimizer=ocp.args.StandardSave(rest),
                    progress=ocp.args.JsonSave(progress),
                    config=ocp.args.JsonSave(self._config),
                ),
                metrics={'validation_loss': float(validation_loss)} if ranked else None,
                force=True,
            )

    def restore(self, abstract_state) -> tuple[dict, dict] | None:
        """Restores the newest whole checkpoint, or says that there is none.

        A damaged checkpoint is named on stderr and the one before it is used.

        Args:
          abstract_state: the train state as ShapeDtypeStructs with shardings, of any mesh.

        Returns:
          (state, progress) as saved, bit for bit; None where nothing has been saved yet.

        Raises:
          UserError: every checkpoint is damaged, or they do not fit `abstract_state`.
        """
        self.wait()
        step, damaged = restoration.agreed_newest_whole(self._directory)
        self._damaged = damaged
        if step is None:
            return None
        folder = self._directory / str(step)
        rest = {name: part for name, part in abstract_state.items() if name != 'params'}
        params = restoration.read_arrays(
            folder, 'params', abstract_state['params'], same_dtype=True
        )
        rest = restoration.read_arrays(folder, 'optimizer', rest, same_dtype=True)
        state = {**rest, 'params': params}
        self._whole = step
        progress = restoration.read_json(folder, 'progress')
        return {name: state[name] for name in abstract_state}, progress

    def wait(self) -> None:
        """Waits until the checkpoint in flight is whole on the disk.

        Raises:
          UserError: it could not be written.
        """
        if self._saving is None:
            return
        with self._storage_errors(self._saving):
            self._orbax.wait_until_finished()
        self._whole, self._saving = self._saving, None
        if jax.process_index() == 0:
            self._remove_leftovers()

    def close(self) -> None:
        """Waits for the checkpoint in flight and lets go of the folder. Raises as `wait` does."""
        self.wait()
        self._shut()

    @contextlib.contextmanager
    def watching_for_preemption(self):
        """While it is open, the first SIGTERM or SIGINT is noted instead of ending the program.

        The second one does what it did before, so that two Ctrl-C stop a run at once. Several
        processes are warned by jax.distributed, which listens for SIGTERM itself: nothing is
        installed then. Main thread only.
        """
        if jax.process_count() > 1:
            yield
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

        def restore_handlers():
            for number, handler in before.items():
                signal.signal(number, handler)

        def note(number, frame):
            self._signal = number
            restore_handlers()
            name = signal.Signals(number).name
            # print may be what the signal interrupted, and cannot be entered twice.
            os.write(2, f'{name}: saving a checkpoint; send it again to stop at once\n'.encode())

        for number in before:
            signal.signal(number, note)
        try:
            yield
        finally:
            restore_handlers()

    def preempted(self, step: int) -> bool:
        """Whether to save and stop after this step; the same answer in every process.

        Args:
          step: the number of finished steps; every process asks at every step.
        """
        if jax.process_count() == 1:
            return self._signal is not None
        return ocp.multihost.reached_preemption(step)

    @property
    def exit_code(self) -> int:
        """What a program that stopped because it was `preempted` ends with: 128 + the signal."""
        return 128 + (self._signal or signal.SIGTERM)

    def _open(self) -> None:
        # Opened at the first save, not before: it reads every step's metrics and must not meet a
        # damaged one, and a damaged step is moved only by a run that goes on to write.
        if self._orbax is not None:
            return
        if jax.process_index() == 0:
            self._remove_leftovers()
            for step in restoration.steps_in(self._directory):
                unreadable = manifest.fault(self._directory / str(step), items={'metrics'})
                if unreadable or step in self._damaged:
                    aside = self._directory / f'damaged-{step}'
                    self._move(self._directory / str(step), aside)
                    print(f'checkpoint {step} is damaged: moved to {aside}', file=sys.stderr)
                elif self._remote:
                    # Without it orbax does not see a step: copied there, or cut off just before.
                    (self._directory / str(step) / restoration.FINISHED).touch()
        self._damaged = []
        policies = ocp.checkpoint_managers

        def validation_loss(metrics):
            return metrics['validation_loss']

        self._orbax = ocp.CheckpointManager(
            self._directory,
            options=ocp.CheckpointManagerOptions(
                best_fn=validation_loss,
                best_mode='min',
                preservation_policy=policies.AnyPreservationPolicy(
                    [
                        policies.LatestN(self._keep),
                        policies.BestN(
                            get_metric_fn=validation_loss,
                            reverse=True,
                            n=1,
                            keep_checkpoints_without_metrics=False,
                        ),
                    ]
                ),
                # Old steps are renamed, then removed by `wait`: a step half deleted when the run
                # was killed would otherwise look like a damaged one.
                todelete_subdir=_DELETED,
                single_host_load_and_broadcast=jax.process_count() > 1,
                async_options=ocp.AsyncOptions(
                    post_finalization_callback=self._write_manifest, barrier_sync_fn=_barrier
                ),
            ),
        )

    def _write_manifest(self) -> None:
        # Runs in process 0's background thread when all processes have written their files and
        # before the folder takes its final name (except on storage that cannot rename folders).
        unfinished = self._directory / f'{self._saving}{_UNFINISHED}'
        final = self._directory / str(self._saving)
        manifest.write(unfinished if unfinished.is_dir() else final)

    def _shut(self) -> None:
        if self._orbax is not None:
            opened, self._orbax = self._orbax, None
            opened.close()

    @contextlib.contextmanager
    def _storage_errors(self, step):
        try:
            yield
        except Exception as error:
            # What the failed save has left behind in memory is not to be trusted: the next save
            # opens the folder anew.
            self._saving = None
            with contextlib.suppress(Exception):
                if jax.process_count() == 1:
                    self._shut()
            self._orbax = None  # of several processes only this one may have failed: no barriers
            if jax.process_index() == 0:
                with contextlib.suppress(Exception):  # what refused to write may refuse this too
                    self._remove_leftovers()  # on a full disk every byte counts
            reason = storage.reason(error) if self._remote else _storage_reason(error)
            if reason is None:
                raise
            rest = (
                f'the checkpoint of step {self._whole} is whole'
                if self._whole is not None
                else 'no checkpoint of this run is whole yet'
            )
            raise UserError(
                f'could not save checkpoint of step {step}: {reason}; {rest}'
            ) from error

    def _agreed_whole(self, step: int) -> bool:
        first = jax.process_index() == 0
        whole = first and manifest.fault(self._directory / str(step)) is None
        return bool(restoration.from_process_0(int(whole)))

    def _move(self, step: Path, aside: Path) -> None:
        if self._remote:
            storage.move(step, aside)
        else:
            shutil.rmtree(aside, ignore_errors=True)
            os.rename(step, aside)

    def _remove_leftovers(self) -> None:
        if self._remote:
            for path in restoration.unfinished_in(self._directory):
                storage.remove(path)
            return
        for path in (*self._directory.glob(f'*{_UNFINISHED}'), self._directory / _DELETED):
            shutil.rmtree(path, ignore_errors=True)


def _barrier(*, key: str, timeout_ms: int) -> None:
    """Waits for all processes, unless this one could not write: they would wait for it in turn."""
    error = sys.exc_info()[1]
    if error is not None and threading.current_thread() is not threading.main_thread():
        raise RuntimeError('the others are not waited for') from error
    ocp.multihost.get_barrier_sync_fn()(key=key, timeout_ms=timeout_ms)


def _hide_closed_loops() -> None:
    """Passes over what the writers of a failed save say, each at length.

    They find their event loop closed; why the save failed is raised besides.
    """
    before = sys.unraisablehook

    def hook(unraisable):
        if str(unraisable.exc_value) != 'Event loop is closed':
            before(unraisable)

    sys.unraisablehook = hook


def _storage_reason(error: BaseException | None) -> str | None:
    """What the disk complained of, in the system's words; None for any other error."""
    codes = ('ENOSPC', 'EDQUOT', 'EFBIG', 'EROFS', 'EIO', 'EACCES', 'EPERM', 'ENOENT', 'ESTALE')
    while error is not None:
        if isinstance(error, OSError):
            return os.strerror(error.errno) if error.errno else str(error).partition('\n')[0]
        # The library that writes arrays reports the system's words inside a ValueError.
        for code in codes:
            if os.strerror(getattr(errno, code)) in str(error):
                return os.strerror(getattr(errno, code))
        error = error.__cause__ or error.__context__
    return None
