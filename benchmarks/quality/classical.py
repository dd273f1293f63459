"""What a network fills holes with, against classical inpainting, on photographs that it was not trained on.

    python benchmarks/quality/classical.py [--model default] [--photos FOLDER] [--sizes 256 512] [--seed 0]
        [--out quality]

`glama-eval` on every photograph's middle square, brought to each size, with each of the seven masks: PSNR and SSIM of
the missing pixels and of the whole image, for OpenCV's Telea and Navier–Stokes, linear interpolation and the network.
Writes a folder for each size, with tables, a sheet of pictures and a page.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from glama_deploy.benchmarks.quality.photos import PHOTOS
from glama_deploy.evaluation.evaluate import Request, evaluate
from glama_deploy.evaluation.methods import BASELINES
from glama_deploy.evaluation.report import tables


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="as glama-eval takes it")
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--sizes", type=int, nargs="+", default=[256, 512])
    parser.add_argument("--seed", type=int, default=0, help="of the masks")
    parser.add_argument("--out", type=Path, default=Path("quality"))
    options = parser.parse_args()
    for side in options.sizes:
        request = Request(
            [str(options.photos)],
            [*BASELINES, options.model],
            options.out / str(side),
            metrics=("psnr", "ssim"),
            size=(side, side),
            seed=options.seed,
            overwrite=True,
        )
        summary = evaluate(request)
        tables.print_tables(Console(width=120), summary)
        for line in summary.remarks:
            print(line)
        print(f"{side}×{side}: {options.out / str(side)}")


if __name__ == "__main__":
    main()
