"""The paper's ablations (its Tables 3 and 4, Figure 3) at the scale of a CPU: what each loss and each mask adds.

    python benchmarks/ablation.py --train PHOTOS [--photos benchmarks/photos] [--steps 600] [--out ablation]

Five networks, each from the same seed on the same squares for the same steps: L_LaMa, + TV, + TV + FFL on all seven
masks; and with all of the loss, LaMa's masks and LaMa's with the line and grid masks. The perceptual loss, whose
weights are a download, is left out of L_LaMa; L1 on the missing pixels stands in its place in all five. Each is then
scored on photographs it has not seen, with each of the seven masks: PSNR of the missing pixels, and the spectrum's
error, the mean |log-amplitude difference| of the filled image's spectrum against the truth's. Writes OUT/ablation.md
and the spectra, OUT/spectra.png. A run that was stopped goes on when started again.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib import pyplot
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from glama_deploy.benchmarks.quality import PHOTOS, square
from glama_deploy.images import SUFFIXES
from glama_deploy.masks import TYPES, by_name
from glama_deploy.reference import checkpoint
from glama_deploy.reference.generator import inpaint
from glama_deploy.training import checkpoints, config
from glama_deploy.training.run import train

#: What each differs in from GLaMa's own: all of the loss, all seven masks.
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


def trained(name: str, changes: list[str], options: argparse.Namespace, progress: Progress) -> Path:
    """The checkpoint of a variant, trained now or already."""
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
    latest = kept.latest()
    task = progress.add_task(name, total=options.steps, completed=kept.steps()[-1] if latest else 0)
    if latest is not None and config.load(str(out / "config.yaml")) != asked:
        raise SystemExit(f"{out} is a run with other options; remove it, or give another --out")
    if latest is not None and kept.steps()[-1] >= options.steps:
        return latest
    return train(
        asked, out, resume=latest is not None, device="cpu", heard=lambda step, _: progress.update(task, completed=step)
    )


def amplitudes(image: np.ndarray) -> np.ndarray:
    """log |F| of an image (float 0…1, H×W×3), its channels' mean, zero frequency in the middle; float64 H×W."""
    return np.log(np.abs(np.fft.fftshift(np.fft.fft2(image.mean(2), norm="ortho"))) + 1e-6)


@torch.inference_mode()
def fill(generator: torch.nn.Module, truth: np.ndarray, missing: np.ndarray) -> np.ndarray:
    image = torch.from_numpy(truth / np.float32(255)).permute(2, 0, 1)[None]
    filled = inpaint(generator, image, torch.from_numpy(missing)[None, None].float())
    return filled[0].permute(1, 2, 0).numpy()


def figure(spectra: dict[str, np.ndarray], path: Path) -> None:
    """The truth's log-amplitudes and each variant's, and under them the differences (as the paper's Figure 3)."""
    truth = spectra["truth"]
    picture, axes = pyplot.subplots(2, len(spectra), figsize=(2.2 * len(spectra), 4.8), layout="constrained")
    for column, (name, values) in enumerate(spectra.items()):
        axes[0, column].imshow(values, cmap="gray", vmin=truth.min(), vmax=truth.max())
        axes[0, column].set_title(name, fontsize=8)
        shown = axes[1, column].imshow(np.abs(values - truth), cmap="magma", vmin=0, vmax=2)
        for axis in axes[:, column]:
            axis.set_axis_off()
    picture.colorbar(shown, ax=axes[1, :], shrink=0.8, label="|Δ log-amplitude|")
    picture.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--train", type=Path, required=True, help="a folder of photographs to train on")
    parser.add_argument("--photos", type=Path, default=PHOTOS, help="photographs to score on")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("ablation"))
    options = parser.parse_args()
    matplotlib.use("Agg")
    options.out.mkdir(parents=True, exist_ok=True)
    console = Console()
    with Progress(console=console) as progress:
        last = {name: trained(name, changes, options, progress) for name, changes in VARIANTS.items()}
    networks = {name: checkpoint.load(path) for name, path in last.items()}
    photos = [square(p, options.side) for p in sorted(options.photos.iterdir()) if p.suffix.lower() in SUFFIXES]
    psnr: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in TYPES} for name in networks}
    error: dict[str, dict[str, list[float]]] = {name: {kind: [] for kind in TYPES} for name in networks}
    spectra: dict[str, np.ndarray] = {}
    for number, truth in enumerate(photos):
        log = amplitudes(truth / 255)
        for kind in TYPES:
            missing = by_name(kind)(options.side, options.side, np.random.default_rng(number))
            for name, network in networks.items():
                filled = fill(network, truth, missing)
                mean = float(((filled - truth / 255) ** 2)[missing].mean())
                psnr[name][kind].append(-10 * math.log10(mean))
                found = amplitudes(filled)
                error[name][kind].append(float(np.abs(found - log).mean()))
                if number == 0 and kind == "ThickStrokes":
                    spectra |= {"truth": log, name: found}
    figure(spectra, options.out / "spectra.png")
    scale = (
        f"{options.steps} steps of {options.batch} squares of {options.side}×{options.side}; {len(photos)} photographs"
    )
    text = [f"PSNR of the missing pixels (dB) / spectrum error. {scale}."]
    for title, names in TABLES.items():
        table = Table("mask", *names, title=title)
        text += ["", f"**{title}**", "", "| mask | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
        for kind in (*TYPES, "mean"):
            kinds = list(TYPES) if kind == "mean" else [kind]
            cells = [
                f"{np.mean([psnr[n][k] for k in kinds]):.2f} / {np.mean([error[n][k] for k in kinds]):.3f}"
                for n in names
            ]
            table.add_row(kind, *cells)
            text.append(f"| {kind} | " + " | ".join(cells) + " |")
        console.print(table)
    (options.out / "ablation.md").write_text("\n".join(text) + "\n")
    print(f"{options.out / 'ablation.md'}, {options.out / 'spectra.png'}")


if __name__ == "__main__":
    main()
