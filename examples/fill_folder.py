"""Fill the pictures of a folder. A mask has the name of its picture: a.jpg and a.png.

    python examples/fill_folder.py PICTURES MASKS OUT [--model default]

Pictures whose output exists are skipped, so an interrupted run continues. A bad file does not end the run.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import glama_deploy
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting import folder, pairing

parser = argparse.ArgumentParser(description="Fill the pictures of a folder.")
parser.add_argument("pictures", type=Path)
parser.add_argument("masks", type=Path)
parser.add_argument("out", type=Path)
parser.add_argument("--model", default="default", help="a bundle, a checkpoint, or 'default'")
arguments = parser.parse_args()

try:
    jobs = pairing.pair_jobs(arguments.pictures, arguments.masks, arguments.out)
    inpainter = glama_deploy.load(arguments.model, streams=2)  # two pictures at once
except GlamaError as error:  # what is wrong with the input, in one line
    parser.exit(2, f"{error}\n")
failed = 0
for result in folder.run_jobs(inpainter, jobs, at_once=inpainter.streams):  # pictures are read and written meanwhile
    print(f"{result.job.image.name}: {result.state} {result.reason}".rstrip())
    failed += result.state == "failed"
sys.exit(2 if failed else 0)
