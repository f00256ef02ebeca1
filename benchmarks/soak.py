"""Memory of the training input path over 2,000 batches: it must stay flat.

    python benchmarks/soak.py [--batches 2000]

Synthetic images of 500 x 700 with 60 masks, to 256 x 256 with crops and flips, so that it ends in
minutes. Prints the resident size as it goes; the ratio is the last tenth to the second tenth.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import pathlib
import statistics
import sys
import tempfile

import bars
import psutil

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--batches", type=int, default=2000)
    batches = parser.parse_args().batches
    import tensorflow_datasets as tfds

    import sa1b_tfds
    from tests import building

    with tempfile.TemporaryDirectory(prefix="sa1b_soak") as name:
        folder = pathlib.Path(name)
        tars = folder / "tars"
        tars.mkdir()
        building.write_large_tars(tars, tars=2, images=50)
        builder = tfds.builder("segment_anything", data_dir=folder)
        with contextlib.redirect_stdout(io.StringIO()):
            builder.download_and_prepare(
                download_config=tfds.download.DownloadConfig(manual_dir=str(tars))
            )
        config = sa1b_tfds.TrainingConfig(
            image_size=256, mask_size=64, masks_per_image=16, repeat=True, shuffle=64,
            scale_range=(0.5, 2.0), flip=0.5,
        )  # fmt: skip
        process, sizes = psutil.Process(), []
        for number, _ in enumerate(sa1b_tfds.training_dataset(builder, config).take(batches)):
            sizes.append(process.memory_info().rss / 1e6)
            if number % (batches // 10) == 0:
                print(f"batch {number:5}: {sizes[-1]:.0f} MB", flush=True)
    tenth = batches // 10
    early, late = (statistics.median(s) for s in (sizes[tenth : 2 * tenth], sizes[-tenth:]))
    bars.report(f"from {early:.0f} to {late:.0f} MB", late / early, at_most=1.1)
    print(f"ratio: {late / early:.2f}")


if __name__ == "__main__":
    main()
