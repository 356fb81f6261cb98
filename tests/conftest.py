"""Eight fake devices, a shared compilation cache, small things that many tests need."""

import os
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
COMPILED = ROOT / 'cache' / 'compiled-for-tests'
# XLA's newer way to make loops takes three times as long to compile, and here each program runs a
# few times. XLA ends where it does not know a flag, so only a jax that was tried gets them.
if jax.__version_info__ < (0, 11):
    os.environ['XLA_FLAGS'] = ' '.join([
        os.environ.get('XLA_FLAGS', ''),
        '--xla_cpu_use_fusion_emitters=false',
        '--xla_cpu_parallel_codegen_split_count=1',
    ])  # fmt: skip

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_compilation_cache_dir', str(COMPILED))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
# The tests compile much and run little.
jax.config.update('jax_disable_most_optimizations', True)


def pytest_collection_modifyitems(items):
    """Commands first: begun last, their long files would leave the other process idle."""
    items.sort(key=lambda item: len(item.path.parts))


@pytest.fixture(scope='session')
def environment():
    """Environment of subprocesses: one CPU device, the shared compilation cache."""
    return os.environ | {
        'PYTHONPATH': str(ROOT),
        'JAX_PLATFORMS': 'cpu',
        'JAX_COMPILATION_CACHE_DIR': str(COMPILED),
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.1',
        'JAX_DISABLE_MOST_OPTIMIZATIONS': '1',
        'PYTHONWARNINGS': 'error:::pretrain,error:::objectives,error:::configs',
    }
