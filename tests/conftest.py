"""Eight fake devices, a shared compilation cache, small things that many tests need."""

import os
from pathlib import Path

import jax
import pytest

ROOT = Path(__file__).parent.parent
COMPILED = ROOT / 'cache' / 'compiled-for-tests'

jax.config.update('jax_num_cpu_devices', 8)
jax.config.update('jax_compilation_cache_dir', str(COMPILED))
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.1)
# The tests compile much and run little.
jax.config.update('jax_disable_most_optimizations', True)


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
