"""What a run writes down while it goes: metrics.jsonl, TensorBoard events and a progress bar."""

import json
import os
import tempfile
from pathlib import Path

from tqdm import tqdm

from pretrain import storage
from pretrain.data.shards import write_whole

# Two runs of the same seed agree in all fields of a row but these.
TIME_FIELDS = ('seconds', 'tokens_per_second', 'mfu')


class RunLog:
    """Writes one JSON object for each logged step, and shows where the run is."""

    def __init__(self, workdir, steps, start):
        """Opens the log; rows past `start` belong to steps that will be made anew, and go.

        Args:
            workdir: folder of the run. steps: length of the run. start: steps done before.
        """
        kept = [row for row in read_rows(workdir) if row['step'] <= start]
        self._workdir = storage.place(workdir)
        self._local, self._temporary = self._workdir, None
        if storage.is_remote(workdir):
            self._temporary = tempfile.TemporaryDirectory(prefix='run-log-')
            self._local = Path(self._temporary.name)
        path = self._local / 'metrics.jsonl'
        with write_whole(path) as file:
            file.write(''.join(json.dumps(row) + '\n' for row in kept).encode())
        self._file = open(path, 'a', buffering=1)
        self._events = _event_writer(self._local, start)
        self._bar = tqdm(total=steps, initial=start, desc='training', unit='step', mininterval=0.5)

    def advance(self):
        """One more step is on its way."""
        self._bar.update()

    def write(self, row):
        """Writes a row: 'step' and numbers by name."""
        self._file.write(json.dumps(row) + '\n')
        for name, value in row.items():
            if self._events and name != 'step':
                group = 'validation/' if name.startswith('validation_') else 'train/'
                tag = group + name.removeprefix('validation_')
                self._events.add_scalar(tag, value, row['step'])
        shown = {'loss': 'loss', 'validation_loss': 'validation', 'tokens_per_second': 'tokens/s'}
        self._bar.set_postfix({shown[n]: f'{row[n]:.4g}' for n in shown if n in row})

    def save(self):
        """Copies what has been written so far to gs://, where the workdir is there.

        Called before each checkpoint, so that a run that goes on from it lacks no row.

        Raises:
            UserError: it cannot be written.
        """
        if self._temporary is None:
            return
        if self._events:
            self._events.flush()
        for path in self._local.iterdir():
            with write_whole(self._workdir / path.name) as file:
                file.write(path.read_bytes())

    def close(self):
        """Closes files and bar. Raises as `save` does."""
        self._bar.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        if self._events:
            self._events.close()
        if self._temporary:
            with self._temporary:
                self.save()
                self._temporary, self._events = None, None


def read_rows(workdir):
    """The rows of a run's metrics.jsonl; [] when there is none.

    A line that is no row is passed over: a kill can leave half of one at the end.
    """
    path = storage.place(workdir) / 'metrics.jsonl'
    rows = []
    if path.exists():
        for line in path.read_bytes().decode(errors='replace').splitlines():
            try:
                row = json.loads(line)
            except ValueError:
                continue
            if isinstance(row, dict) and isinstance(row.get('step'), int):
                rows.append(row)
    return rows


def _event_writer(workdir, start):
    try:
        from tensorboardX import SummaryWriter
    except ImportError:
        print('tensorboardX is not installed: no TensorBoard events (metrics.jsonl has it all)')
        return None
    return SummaryWriter(str(workdir), purge_step=start + 1)
