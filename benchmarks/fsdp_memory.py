"""What a device holds of parameters and optimizer as fsdp grows, without compiling anything.

    python -m benchmarks.fsdp_memory --config=configs/gpt.py:gpt2_1558m
"""

from launch import step_program, topology
from pretrain import commandline

CONFIG = commandline.define_config()
SIDES = {1: '1x1', 4: '2x2', 8: '2x4', 16: '4x4', 64: '8x8', 256: '16x16'}
GIB = 2**30


def main(argv):
    """Prints a row for each number of devices."""
    del argv
    config = CONFIG.value
    config.accumulation = 1
    print('devices  GiB a device  of one device  of its share')
    whole = None
    for count, sides in SIDES.items():
        config.mesh = f'fsdp={count}'
        step = step_program.describe(config, topology.find(f'v5e:{sides}').devices)
        size = step_program.bytes_on_a_device(step.state) / GIB
        whole = whole or size
        print(f'{count:7}  {size:12.3f}  {size / whole:13.4f}  {size / whole * count:12.3f}')


if __name__ == '__main__':
    commandline.run(main)
