"""Image in, image out: checks, padding, the network, compositing. Knows no engine by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal, get_args

import numpy as np

from glama_deploy import memory
from glama_deploy.bundle import MAX_SIDE, SizeRange
from glama_deploy.cost import long_side
from glama_deploy.errors import EngineError, GlamaError, ImageError
from glama_deploy.inpainting import boxes as regions
from glama_deploy.inpainting import tiles
from glama_deploy.inpainting.tensors import DeviceArray, compute_padding, on_device, to_images, to_tensors
from glama_deploy.network import MIN_SIDE, NetworkConfig, next_side
from glama_deploy.runtime.base import DeviceKind, Runner
from glama_deploy.runtime.calls import native_call

log = logging.getLogger("glama_deploy")

#: What a network is shown of an image.
Region = Literal["auto", "full", "crop"]

#: What there is for an image that is too large to be shown whole.
TILED = ", or use region auto, which fills large holes by tiles"

#: A hole, and what is there now, [h, w, 3].
_Filled = tuple[regions.Span, np.ndarray]

#: Holes that are filled by tiles, with the size of the tiles.
_Tiled = dict[regions.Span, tiles.Size]

#: What the network is shown: boxes, batch by batch, and holes to fill by tiles.
_Plan = tuple[list[list[regions.Box]], _Tiled]

#: Whether engine and memory take so many pictures of a height and width at once.
_Takes = Callable[..., bool]


class Inpainter:
    """Fills the missing pixels of images with one open engine; made by :func:`glama_deploy.load`."""

    def __init__(self, runner: Runner, network: NetworkConfig) -> None:
        self._runner = runner
        self._network = network
        #: Bytes that the engine holds since it ran, and the holder's name.
        self._held, self._holder = 0, runner.holder

    @property
    def network(self) -> NetworkConfig:
        """What the network is made of."""
        return self._network

    @property
    def backend(self) -> str:
        """The engine's name: openvino, onnxruntime, tensorrt or torch."""
        return self._runner.backend

    @property
    def description(self) -> str:
        """Engine, version, device and precision, for people."""
        return self._runner.description

    @property
    def device(self) -> DeviceKind:
        """Where the engine computes: cpu or cuda."""
        return self._runner.device

    @property
    def precision(self) -> str:
        """What the engine computes in: fp32, bf16, fp16, int8, int8+bf16 or int8+fp16."""
        return self._runner.precision

    @property
    def streams(self) -> int:
        """How many threads may call it at once, to be served at once."""
        return self._runner.streams

    def __call__(self, image: np.ndarray, mask: np.ndarray, *, region: Region = "auto") -> np.ndarray:
        """The image with its missing pixels filled.

        image: uint8 H×W×3 RGB, H and W ≥ 16. mask: bool or uint8 H×W, > 0 = missing. Gives uint8 H×W×3; pixels that
        are not missing come back bit-exact. Raises ImageError for anything else, EngineError where the engine fails.

        region: what the network sees. `full`: the image; `crop`: boxes around the holes
        (:mod:`glama_deploy.inpainting.boxes`); `auto`: boxes where they cost clearly less (in an image of more than a
        megapixel: just less; of more than four: up to twice as much, if the boxes are small), or where the image is too
        large for the engine or the memory. With both, tiles (:mod:`glama_deploy.inpainting.tiles`) fill a hole whose
        box is too large for the engine or the memory, which logs a note, and a long hole for which tiles cost less than
        half.

        A TensorRT engine with uint8 tensors also takes arrays that lie on the GPU (`__cuda_array_interface__`: CuPy,
        PyCUDA, PyTorch) and reads them there, as a whole.
        """
        check_region(region)
        if on_device(image) or on_device(mask):
            return self._run_on_device(image, mask, "inpainted")
        missing = check(image, mask)
        result, left = image.copy(), missing.copy()
        if not missing.any():
            return result
        for hole, filled in self._filled(image, missing, region):
            here = left[hole.slices]
            result[hole.slices][here] = self._bytes(filled[here])
            here[:] = False  # where holes overlap, the first fills
        return result

    def batch(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Images of one size at once, each whole: uint8 B×H×W×3 and bool or uint8 B×H×W → uint8 B×H×W×3.

        Known pixels come back bit-exact. Raises as :meth:`__call__` does, also where the engine takes fewer at once.
        """
        dimensions = getattr(images, "ndim", 0), getattr(masks, "ndim", 0)
        if dimensions != (4, 3) or len(images) != len(masks) or not len(images):
            raise ImageError(
                "as many images (batch × height × width × 3) as masks (batch × height × width) are expected, at least 1"
            )
        missing = np.stack([check(image, mask) for image, mask in zip(images, masks, strict=True)])
        self._check_fits(missing.shape[1], missing.shape[2], len(missing))
        result = images.copy()
        result[missing] = self._bytes(self._run(images, missing, "inpainted")[missing])
        return result

    def predict(self, image: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """The network's output before compositing, float32 H×W×3, 0…1, for image and mask as :meth:`__call__` takes.

        The network sees the whole image, as with `region="full"` there.
        """
        if on_device(image) or on_device(mask):
            predicted = self._run_on_device(image, mask, "predicted")
        else:
            missing = check(image, mask)
            self._check_fits(missing.shape[0], missing.shape[1])
            predicted = self._run(image[None], missing[None], "predicted")[0]
        self._check_finite(predicted)
        return np.ascontiguousarray(predicted)

    def _filled(self, image: np.ndarray, missing: np.ndarray, region: Region) -> Iterator[_Filled]:
        """Give each hole in turn and what the network fills it with. Together the holes have all missing pixels."""
        groups, tiled = self._plan(missing, region)
        for group in groups:  # before any work
            self._check_fits(*group[0].span.size, len(group), whole=group[0].span.size == missing.shape, tip=TILED)
        for group in groups:
            crops = [(image[box.span.slices], missing[box.span.slices]) for box in group]
            images, masks = (np.stack(parts) for parts in zip(*crops, strict=True))
            for box, given in zip(group, self._run(images, masks, "inpainted"), strict=True):
                yield box.hole, given[box.hole.within(box.span).slices]
        for hole, size in tiled.items():
            yield hole, tiles.fill_hole(image, missing, hole, size, self._run_tile)

    def _plan(self, missing: np.ndarray, region: Region) -> _Plan:
        """Return what the network is shown to fill the missing pixels, bool H×W, of an image."""
        rule = self._rule()
        whole = [[rule.whole_image(missing.shape)]]
        if region == "full":
            return whole, {}
        takes = cache(self._takes)  # so that all boxes are judged by the same free memory
        boxes, large = rule.find_boxes(missing)
        large += [box.hole for box in boxes if not takes(*box.span.size)]
        fitting = [box for box in boxes if takes(*box.span.size)]
        tiled, price = self._cheaper_tiles(fitting, missing, rule)
        boxes = self._share(fitting, [*tiled, *large], missing.shape, rule, takes)
        largest = max(
            [*(box.pixels for box in boxes), *(height * width for height, width in tiled.values())], default=0
        )
        pays = bool(large) or rule.is_better_than_whole(price + regions.total_cost(boxes), missing.shape, largest)
        if region == "auto" and not pays and takes(*missing.shape):
            return whole, {}
        if large:
            sizes = {hole: self._tile_size(hole, missing.shape) for hole in large}
            self._note_tiles(sizes, missing.shape)
            tiled |= sizes
        return list(self._groups(boxes, takes)), tiled

    def _rule(self) -> regions.Rule:
        """Return how boxes are made for this engine and network."""
        coarse = self._network.coarse_side**2 if self._network.coarse is not None else 0
        return regions.Rule(
            self._runner.sizes,
            square=self._runner.compiles_sizes,
            overhead_pixels=regions.BOX_OVERHEAD_PIXELS + coarse,
            fourier_cost=long_side(self._network),
        )

    def _cheaper_tiles(self, boxes: list[regions.Box], missing: np.ndarray, rule: regions.Rule) -> tuple[_Tiled, float]:
        """Return the holes with large boxes that tiles fill for less than half of the cost, with the size of the tiles;
        and the cost of all these tiles."""
        tiled, price = _Tiled(), 0.0
        for box in (box for box in boxes if box.pixels > regions.LARGE_BOX_PIXELS):
            sizes = tiles.list_hole_tile_sizes(self._runner.sizes, box.hole, (missing.shape[0], missing.shape[1]))
            size = next((size for size in sizes if size[0] * size[1] <= regions.LARGE_BOX_PIXELS), None)
            if size is None:
                continue
            cost = tiles.count_runs(missing, box.hole, size) * rule.cost_of(*size)
            if cost < box.cost / 2:
                log.info("a hole of %dx%d is filled by tiles (%dx%d), which cost less", *box.hole.size, *size)
                tiled[box.hole], price = size, price + cost
        return tiled, price

    def _share(
        self,
        boxes: list[regions.Box],
        tiled: list[regions.Span],
        shape: tuple[int, ...],
        rule: regions.Rule,
        takes: regions.Fits,
    ) -> list[regions.Box]:
        """Return the boxes that are left where tiles fill some holes, and with those merged that cost less as one."""
        left = [box for box in boxes if not any(hole.contains(box.hole) for hole in tiled)]
        return rule.merge_boxes(left, shape, takes)

    def _groups(self, boxes: list[regions.Box], takes: _Takes) -> Iterator[list[regions.Box]]:
        """Return the boxes in groups of one size, each of which is one batch."""
        most = 1 if self._runner.compiles_sizes else self._runner.sizes.max_batch
        for group in regions.group_by_size(boxes, most):
            if len(group) == 1 or takes(*group[0].span.size, len(group)):
                yield group
            else:
                yield from ([box] for box in group)

    def _tile_size(self, hole: regions.Span, shape: tuple[int, ...]) -> tiles.Size:
        """Return the largest tile of a hole that engine and memory take. Raises ImageError where there is none."""
        height, width = shape
        sizes = tiles.list_hole_tile_sizes(self._runner.sizes, hole, (height, width))
        for size in sizes:
            if self._takes(*size, beside=tiles.BYTES_PER_IMAGE_PIXEL * height * width):
                return size
        smallest = sizes[-1] if sizes else (height, width)
        self._check_fits(*smallest, whole=not sizes, beside=tiles.BYTES_PER_IMAGE_PIXEL * height * width)
        return smallest  # the memory became free meanwhile

    def _note_tiles(self, large: _Tiled, shape: tuple[int, ...]) -> None:
        """Say that holes do not fit and are filled by tiles, why, and what the user can do."""
        hole = max(large, key=lambda span: span.size[0] * span.size[1])
        size = large[hole]
        sizes, context = self._runner.sizes, 2 * regions.context_margin(hole)
        wanted = (min(side + context, extent) for side, extent in zip(hole.size, shape, strict=True))
        why, otherwise = "the free memory", "scale the image down"
        if any(next_side(side) > most for side, most in zip(wanted, sizes.max, strict=True)):
            why = f"this engine, which takes {sizes},"
            otherwise = f"export {'without --size' if sizes.static else 'with a larger --max-size'}"
        hole_size, tile_size = (f"{height}x{width}" for height, width in (hole.size, size))
        log.warning(
            "a hole of %s with its context does not fit %s and is filled by tiles (%s, up to %d); to fill it "
            "at once %s",
            hole_size,
            why,
            tile_size,
            len(tiles.cover_hole(hole, (shape[0], shape[1]), size)),
            otherwise,
        )

    def _run_tile(self, image: np.ndarray, missing: np.ndarray) -> np.ndarray:
        return self._bytes(self._run(image[None], missing[None], "inpainted"))[0]

    def _run(self, images: np.ndarray, missing: np.ndarray, output: str) -> np.ndarray:
        """[B, H, W, 3] of the output: float32, or uint8 where the graph gives that."""
        (_, height, width), io = missing.shape, self._runner.io
        try:
            with native_call():
                result = self._runner.run(*to_tensors(images, missing, io, self._pads(height, width)), output)
        except EngineError:
            self._held = 0  # whatever it held, it may have given back
            raise
        size = self._padded(height, width, len(missing))
        needed, held = self._memory(size)
        self._held = max(needed, held) if self._holder == self._runner.holder else needed
        self._holder = self._runner.holder
        return to_images(result, io, height, width)

    def _memory(self, size: tuple[int, int, int]) -> tuple[int, int]:
        """Bytes that images of a padded size, a batch of them, take, and how many the engine holds, which it uses again
        or gives back."""
        height, width, batch = size
        needed = self._runner.memory_needed((height, width), batch)
        return (needed, self._held) if self.streams == 1 else (needed * self.streams, 0)

    def _padded(self, height: int, width: int, batch: int) -> tuple[int, int, int]:
        bottom, right = self._pads(height, width)
        return height + bottom, width + right, batch

    def _pads(self, height: int, width: int) -> tuple[int, int]:
        return compute_padding(height, width, self._runner.io, self._runner.sizes)

    def _run_on_device(self, image: Any, mask: Any, output: str) -> np.ndarray:
        """The same for arrays that lie on the GPU, both of them, and are read where they lie."""
        if not self._runner.takes_device_arrays or self._runner.io != "uint8":
            raise ImageError(
                f"the image or mask lies on a GPU, which {self.description} does not read; pass numpy arrays, or "
                "export with --io uint8 for TensorRT"
            )
        if not on_device(image) or not on_device(mask):
            raise ImageError("of image and mask one lies on the GPU and one does not; put both in one place")
        batch, missing = DeviceArray(image), DeviceArray(mask, mask=True)
        if len(batch.shape) != 4 or batch.shape[3] != 3 or missing.shape != batch.shape[:3]:
            raise ImageError(
                f"image and mask have shapes {list(batch.shape[1:])} and {list(missing.shape[1:])}; "
                "height × width × 3 and height × width are expected"
            )
        height, width = missing.shape[1:]
        if self._pads(height, width) != (0, 0):
            raise ImageError(
                f"the image is {height}x{width} and lies on the GPU, where it is not padded; export without --size"
            )
        self._check_fits(height, width)
        with native_call():
            return self._runner.run(batch, missing, output)[0]  # type: ignore[arg-type]

    def _takes(self, height: int, width: int, batch: int = 1, *, beside: int = 0) -> bool:
        """Whether the engine takes what is of this size, and the memory for so many of it is there, with so many bytes
        beside."""
        size = self._padded(height, width, batch)
        if not self._runner.sizes.covers(*size[:2]):
            return False
        needed, held = self._memory(size)
        return memory.fits(needed + beside, held)

    def _check_fits(
        self, height: int, width: int, batch: int = 1, *, whole: bool = True, tip: str = "", beside: int = 0
    ) -> None:
        """Raise ImageError for a size, batch or need of memory beyond what is there, with so many bytes beside it; of a
        whole image, or of boxes. The tip is for an image that is too large."""
        sizes, padded_size = self._runner.sizes, self._padded(height, width, batch)
        padded_height, padded_width, _ = padded_size
        if sizes.max_batch is not None and batch > sizes.max_batch:
            raise ImageError(f"{batch} images at once, this engine takes {sizes.max_batch}; give fewer at a time")
        if not sizes.covers(padded_height, padded_width):
            size = f"{padded_height}x{padded_width}"
            padded = f" (padded to {size})" if (height, width) != (padded_height, padded_width) else ""
            raise ImageError(
                f"the image is {height}x{width}{padded}, this engine takes {sizes}; export again with "
                f"{_widened(sizes, padded_height, padded_width)}, or without a size"
                + ("" if sizes.static else " (of a TensorRT engine: glama-build again with it)")
                + (tip if tiles.list_tile_sizes(sizes, (height, width)) else "")
            )
        what = "the image" if whole else "what is looked at around a hole"
        several = f", {batch} at once," if batch > 1 else ""
        remedy = f"scale the image down{tip if whole and tip else ' or cut it into parts'}"
        needed, held = self._memory(padded_size)
        memory.check(needed + beside, f"{what} is {padded_height}x{padded_width}{several}", remedy, held)

    def _bytes(self, filled: np.ndarray) -> np.ndarray:
        """Values of the output as uint8; those that a graph gives as 0…1 are taken over and changed."""
        if filled.dtype == np.uint8:
            return filled
        self._check_finite(filled)
        np.multiply(filled, 255, out=filled)
        return np.rint(filled, out=filled).clip(0, 255).astype(np.uint8)

    def _check_finite(self, values: np.ndarray) -> None:
        if not np.isfinite(values).all():
            raise EngineError(
                f"{self.description} gave values that are not finite; nothing was written: use another backend or "
                "precision fp32, and report the image"
            )


def _widened(sizes: SizeRange, height: int, width: int) -> str:
    """The options that make an engine take this size, too."""
    low = min(next_side(height), sizes.min[0]), min(next_side(width), sizes.min[1])
    high = max(next_side(height), sizes.max[0]), max(next_side(width), sizes.max[1])
    if sizes.static:
        return f"--size {next_side(height)}x{next_side(width)}"
    options = [("--min-size", low, sizes.min), ("--max-size", high, sizes.max)]
    return " ".join(f"{option} {side[0]}x{side[1]}" for option, side, there in options if side != there)


def check_region(region: str) -> None:
    """Raise GlamaError for a region that does not exist."""
    if region not in get_args(Region):
        raise GlamaError(f"region is {region!r}; expected {', '.join(get_args(Region))}")


def check(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The mask as bool H×W, True = missing; raises ImageError unless image and mask are as `Inpainter` takes them."""
    if not isinstance(image, np.ndarray) or not isinstance(mask, np.ndarray):
        wrong = image if not isinstance(image, np.ndarray) else mask
        raise ImageError(f"image and mask must be numpy arrays, not {type(wrong).__name__}; np.asarray makes one")
    if image.ndim != 3 or image.shape[2] != 3:
        raise ImageError(f"the image has shape {list(image.shape)}; height × width × 3 (RGB) is expected")
    if image.dtype != np.uint8:
        hint = "multiply by 255, round and cast" if image.dtype.kind == "f" else "scale it to 0…255 and cast"
        raise ImageError(f"the image is {image.dtype}; uint8 (0…255) is expected: {hint}")
    height, width = image.shape[:2]
    check_sides(height, width)
    if mask.ndim != 2:
        raise ImageError(f"the mask has shape {list(mask.shape)}; height × width is expected, without channels")
    if mask.shape != (height, width):
        raise ImageError(
            f"the mask is {mask.shape[0]}x{mask.shape[1]}, the image {height}x{width}; they must be of one size"
        )
    if mask.dtype != np.bool_ and mask.dtype != np.uint8:
        raise ImageError(f"the mask is {mask.dtype}; bool or uint8 (> 0 = missing) is expected")
    return mask if mask.dtype == np.bool_ else mask > 0


def check_sides(height: int, width: int) -> None:
    """Raise ImageError for an image with sides that are not supported, in pixels."""
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise ImageError(
            f"the image is {height}x{width}; both sides must be from {MIN_SIDE} to {MAX_SIDE} pixels: scale or cut it"
        )
