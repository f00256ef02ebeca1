"""`python -m tests.ranks TARS RUNS`: trainings of several processes over gloo, one after another.

Each process appends a line [step, ids] to `rank<i>` for each batch. After each step the first one
saves the step and its loader's state. The next training by the same loader goes on from there.
RUNS is a JSON list of loader ('sampler' or 'grain'), folder, world, batch (images of all processes)
and kill: [rank, step] ends that process by SIGKILL in the midst of that step, or null. Prints the
exit codes of each training.
"""

import json
import os
import pathlib
import signal
import sys

import grain
import torch
import torch.distributed as dist
from torchdata.stateful_dataloader import StatefulDataLoader

import sa1b_tfds
from sa1b_tfds.torch import BlockShuffleSampler, SA1BDataset, collate


def by_sampler(tars: str, options: dict, state: dict | None):
    """Yields the ids of a batch, and the state after it."""
    dataset = SA1BDataset(tars, mask_size=8)
    sampler = BlockShuffleSampler(dataset, block_size=5)
    batch_size = options["batch"] // options["world"]
    loader = StatefulDataLoader(dataset, batch_size, sampler=sampler, collate_fn=collate)
    if state is not None:
        loader.load_state_dict(state)
    for _, _, metadata in loader:
        yield [m["image_id"] for m in metadata], loader.state_dict()


def by_grain(tars: str, options: dict, state: dict | None):
    config = sa1b_tfds.TrainingConfig(
        batch_size=options["batch"], image_size=32, mask_size=8, masks_per_image=2, shuffle=5
    )
    shard = grain.sharding.ShardOptions(
        shard_index=dist.get_rank(), shard_count=dist.get_world_size()
    )
    iterator = iter(sa1b_tfds.grain.dataset(tars, config, shard=shard))
    if state is not None:
        iterator.set_state(state)
    for batch in iterator:
        yield batch["image_id"].tolist(), iterator.get_state()


def run(rank: int, tars: str, options: dict, state: dict | None) -> None:
    folder = pathlib.Path(options["folder"])
    store = f"file://{folder}/store"
    dist.init_process_group("gloo", init_method=store, rank=rank, world_size=options["world"])
    batches = {"sampler": by_sampler, "grain": by_grain}[options["loader"]]
    with open(folder / f"rank{rank}", "a") as log:
        for step, (ids, after) in enumerate(batches(tars, options, state), 1):
            if options["kill"] == [rank, step]:
                os.kill(os.getpid(), signal.SIGKILL)
            dist.all_reduce(torch.ones(1))  # as the gradients
            log.write(json.dumps([step, ids]) + "\n")
            log.flush()
            dist.barrier()
            if rank == 0:
                (folder / "new").write_text(json.dumps({"step": step, "state": after}))
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
    codes, states = [], {}
    for options in json.loads(sys.argv[2]):
        state = states.get(options["loader"])
        folder = pathlib.Path(options["folder"])
        folder.mkdir()
        ranks = range(options["world"])
        pids = [start(rank, sys.argv[1], options, state) for rank in ranks]
        codes.append([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids])
        states[options["loader"]] = json.loads((folder / "state").read_text())["state"]
    print(json.dumps(codes))


if __name__ == "__main__":
    main()
