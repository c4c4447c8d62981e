"""What each of two processes does that `torchrun` starts: a command, and the work of two files.

The command makes a group of its own; the group for the rest meets at the port that is given.
"""

import os
import sys
from pathlib import Path

import test_distributed
import test_openclip
import torch

from cae_lib.cli import main
from cae_lib.training.distributed import init_distributed

if __name__ == "__main__":
    folder, port = sys.argv[1:]
    torch.set_num_threads(1)
    assert main(["train", "cae-attention", "--profile", "smoke"]) == 0
    os.environ.update(TORCHELASTIC_USE_AGENT_STORE="False", MASTER_PORT=port)
    with init_distributed(torch.device("cpu")) as ranks:
        test_distributed.work(ranks, Path(folder))
        test_openclip.work(ranks.rank, Path(folder))
