"""`python -m tests.ranks TARS RUNS`: trainings of several processes over gloo, one after another.

Each process appends a line [step, ids] to `rank<i>` for each batch. After each step the first one
saves the step and its loader's state. The next training goes on from the state of the one before.
RUNS is a JSON list of folder, world, batch and kill: [rank, step] ends that process by SIGKILL in
the midst of that step, or null. Prints the exit codes of each training.
"""

import json
import os
import pathlib
import signal
import sys

import torch
import torch.distributed as dist
from torchdata.stateful_dataloader import StatefulDataLoader

from sa1b_tfds.torch import BlockShuffleSampler, SA1BDataset, collate


def run(rank: int, tars: str, options: dict, state: dict | None) -> None:
    folder = pathlib.Path(options["folder"])
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=options["world"])
    dataset = SA1BDataset(tars, mask_size=8)
    sampler = BlockShuffleSampler(dataset, block_size=5)
    loader = StatefulDataLoader(
        dataset, batch_size=options["batch"], sampler=sampler, collate_fn=collate
    )
    if state is not None:
        loader.load_state_dict(state)
    with open(folder / f"rank{rank}", "a") as log:
        for step, (_, _, metadata) in enumerate(loader, 1):
            if options["kill"] == [rank, step]:
                os.kill(os.getpid(), signal.SIGKILL)
            dist.all_reduce(torch.ones(1))  # as the gradients
            log.write(json.dumps([step, [m["image_id"] for m in metadata]]) + "\n")
            log.flush()
            dist.barrier()
            if rank == 0:
                text = json.dumps({"step": step, "state": loader.state_dict()})
                (folder / "new").write_text(text)
                (folder / "new").replace(folder / "state")
    dist.destroy_process_group()


def start(rank: int, *options) -> int:
    """-> the process's id."""
    if pid := os.fork():
        return pid
    try:
        run(rank, *options)
    except BaseException as e:
        print(f"rank {rank}: {e}", file=sys.stderr, flush=True)
        os._exit(1)
    os._exit(0)


def main() -> None:
    codes, state = [], None
    for options in json.loads(sys.argv[2]):
        folder = pathlib.Path(options["folder"])
        folder.mkdir()
        ranks = range(options["world"])
        pids = [start(rank, sys.argv[1], options, state) for rank in ranks]
        codes.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
        state = json.loads((folder / "state").read_text())["state"]
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
