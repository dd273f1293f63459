"""The paper's ablations (its Tables 3 and 4, Figure 3) at the scale of a CPU: what each loss and each mask adds.

    python benchmarks/quality/ablation.py --train PHOTOS [--photos benchmarks/photos] [--steps 600] [--out ablation]

Five networks, each from the same seed on the same squares for the same steps: L_LaMa, + TV, + TV + FFL on all seven
masks; and with all of the loss, LaMa's masks and LaMa's with the line and grid masks. The perceptual loss, whose
weights are a download, is left out of L_LaMa; L1 on the missing pixels stands in its place in all five. Each is then
scored by `glama-eval` on photographs it has not seen, with each of the seven masks: PSNR of the missing pixels, and the
spectrum's error. Writes OUT/ablation.md and the evaluation, OUT/scores. A run that was stopped goes on when started
again.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from glama_deploy.benchmarks.quality.photos import PHOTOS
from glama_deploy.evaluation.evaluate import Request, evaluate
from glama_deploy.evaluation.metrics.registry import METRICS
from glama_deploy.evaluation.report.summary import Summary
from glama_deploy.io.files import atomic_file
from glama_deploy.masks import TYPES
from glama_deploy.training import checkpoints, config
from glama_deploy.training.run import train

#: Settings of each variant that differ from GLaMa's, which has the whole loss and all seven masks.
VARIANTS: dict[str, list[str]] = {
    "L_LaMa": ["weights.total_variation=0", "weights.focal_frequency=0"],
    "L_LaMa + TV": ["weights.focal_frequency=0"],
    "LaMa's masks": ["data.masks=lama"],
    "LaMa Plus masks": ["data.masks=lama-plus"],
    "GLaMa": [],
}
TABLES = {
    "losses, general masks (paper's Table 3)": ["L_LaMa", "L_LaMa + TV", "GLaMa"],
    "masks, all of the loss (paper's Table 4)": ["LaMa's masks", "LaMa Plus masks", "GLaMa"],
}


def train_variant(name: str, changes: list[str], options: argparse.Namespace, progress: Progress) -> Path:
    """Train a variant, or continue where an earlier run stopped.

    Args:
        name: the variant's name.
        changes: settings that differ from GLaMa's.
        options: the options of the command.
        progress: where the steps are shown.

    Returns:
        The variant's last checkpoint.
    """
    settings = [
        f"data.train=[{options.train}]",
        f"data.side={options.side}",
        "data.zoom=0.33",
        "data.keep=1000",
        "data.workers=0",
        "weights.perceptual=0",
        "weights.l1_missing=10",
        "discriminator.channels=32",
        f"optimization.batch={options.batch}",
        f"optimization.steps={options.steps}",
        "optimization.average=0.99",
        "saving.every=100",
        "saving.keep=1",
    ]
    asked = config.load("glama-tiny", [*settings, *changes])
    out = options.out / "runs" / "".join(c if c.isalnum() else "-" for c in name.lower())
    kept = checkpoints.Checkpoints(out, 1)
    latest = kept.find_latest()
    task = progress.add_task(name, total=options.steps, completed=kept.list_steps()[-1] if latest else 0)
    if latest is not None and config.load(str(out / "config.yaml")) != asked:
        raise SystemExit(f"{out} is a run with other options; remove it, or give another --out")
    if latest is not None and kept.list_steps()[-1] >= options.steps:
        return latest
    return train(
        asked,
        out,
        resume=latest is not None,
        device="cpu",
        on_step=lambda step, _: progress.update(task, completed=step),
    )


def average_masks(found: Summary, name: str, kinds: Sequence[str], metric: str) -> float:
    """Average a metric of a variant over masks, in the metric's usual region.

    Args:
        found: the evaluation.
        name: the variant's name.
        kinds: names of masks.
        metric: name of the metric.

    Returns:
        The mean.
    """
    values = [
        c.value.mean
        for c in found.cells
        if (c.method, c.metric, c.region) == (name, metric, METRICS[metric].region) and c.mask in kinds
    ]
    return statistics.fmean(values)


def main() -> None:
    """Parse the options, measure, and print the results."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="a folder of photographs to train on")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="photographs to score on")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("ablation"))
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with Progress(console=console) as progress:
        last = {name: train_variant(name, changes, options, progress) for name, changes in VARIANTS.items()}
    request = Request(
        [str(options.photos)],
        [f"{name}={path}@torch" for name, path in last.items()],
        options.out / "scores",
        metrics=("psnr", "spectrum"),
        size=(options.side, options.side),
        overwrite=True,
    )
    found = evaluate(request)
    count = sum(found.images.values())
    scale = f"{options.steps} steps of {options.batch} squares of {options.side}×{options.side}; {count} photographs"
    text = [f"PSNR of the missing pixels (dB) / spectrum error. {scale}."]
    for title, names in TABLES.items():
        table = Table("mask", *names, title=title)
        text += ["", f"**{title}**", "", "| mask | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for kind in (*TYPES, "mean"):
            kinds = list(TYPES) if kind == "mean" else [kind]
            cells = [
                f"{average_masks(found, name, kinds, 'psnr'):.2f} / {average_masks(found, name, kinds, 'spectrum'):.3f}"
                for name in names
            ]
            table.add_row(kind, *cells)
            text.append(f"| {kind} | " + " | ".join(cells) + " |")
        console.print(table)
    with atomic_file(options.out / "ablation.md") as temporary:
        temporary.write_text("\n".join(text) + "\n", encoding="utf-8")
    print(f"{options.out / 'ablation.md'}; spectra and pictures in {options.out / 'scores'}")


if __name__ == "__main__":
    main()
