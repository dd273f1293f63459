"""Plan what a network is shown of an image: boxes in batches, holes that tiles fill, or the whole image.

A plan depends on the missing pixels and on `Limits` alone, and is made before the first run. The way of an image:

1. Each hole gets a box (:mod:`glama_deploy.inpainting.boxes`). A hole whose box is too large for the engine or the
   memory is filled by tiles (:mod:`glama_deploy.inpainting.tiles`).
2. Tiles also fill a hole with a large box where they cost less than half of the box.
3. Boxes are merged where one box costs less than several.
4. Boxes of nearly one size become boxes of one size, so that few sizes occur.
5. The whole image replaces boxes and tiles where it fits and they are not the better way.
6. Boxes of one size are joined in batches.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import numpy as np

from glama_deploy import memory
from glama_deploy.bundle import Io, SizeRange
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting import tiles
from glama_deploy.inpainting.boxes import (
    BOX_OVERHEAD_PIXELS,
    LARGE_BOX_PIXELS,
    Box,
    Rule,
    Span,
    bounding_box,
    context_margin,
    group_by_size,
    total_cost,
    unite,
)
from glama_deploy.inpainting.padding import compute_padding
from glama_deploy.inpainting.tiles import Size
from glama_deploy.inpainting.windows import bound_window
from glama_deploy.network import MAX_SIDE, NetworkConfig, next_side

log = logging.getLogger("glama_deploy")

#: What a network is shown of an image.
Region = Literal["auto", "full", "crop"]

#: The bytes of main memory that an engine needs for images of a padded height and width, of a batch size, and with a
#: window of a height and width (None: the whole image).
MemoryNeeded = Callable[[Size, int, Size | None], int]

#: The end of a message about an image that is too large to be shown whole.
_TILES_TIP = ", or use region auto, which fills large holes by tiles"


@dataclass(frozen=True)
class Limits:
    """What engine and memory allow, and what a run costs.

    Attributes:
        sizes: sizes that the engine takes.
        io: whether the graph's tensors are float or uint8, which decides how images are padded.
        memory_needed: bytes that a run needs, by padded size, batch and window.
        free_bytes: free main memory; None if it is not known, which limits nothing.
        held_bytes: memory that the engine holds from earlier runs and uses again.
        compiles_sizes: whether the engine compiles each size. Boxes are then square and run one by one, so that fewer
            sizes occur.
        overhead_pixels: cost of a run beside its pixels, in pixels.
        fourier_cost: cost of the network's Fourier transforms, as :class:`glama_deploy.inpainting.boxes.Rule` has it.
        windowed: the network, if the engine computes its last layers around the holes alone; else None.
    """

    sizes: SizeRange
    io: Io
    memory_needed: MemoryNeeded
    free_bytes: int | None = None
    held_bytes: int = 0
    compiles_sizes: bool = False
    overhead_pixels: int = BOX_OVERHEAD_PIXELS
    fourier_cost: float = 0.0
    windowed: NetworkConfig | None = None

    @property
    def rule(self) -> Rule:
        """The rule by which boxes are made."""
        return Rule(
            self.sizes,
            compiles_sizes=self.compiles_sizes,
            overhead_pixels=self.overhead_pixels,
            fourier_cost=self.fourier_cost,
        )

    def pad_size(self, size: Size) -> Size:
        """Return the size to which an image is padded.

        Args:
            size: height and width of the image in pixels.

        Returns:
            Height and width in pixels.
        """
        bottom, right = compute_padding(*size, self.io, self.sizes)
        return size[0] + bottom, size[1] + right

    def count_bytes(self, size: Size, batch: int = 1, hole: Size | None = None) -> int:
        """Return the memory that the engine needs.

        Args:
            size: height and width of the images in pixels.
            batch: number of images at once.
            hole: height and width of the part that is filled; None for any part.

        Returns:
            Bytes of main memory.
        """
        window = None
        if hole is not None and self.windowed is not None:
            window = bound_window(hole, (next_side(size[0]), next_side(size[1])), self.windowed)
        return self.memory_needed(self.pad_size(size), batch, window)

    def can_run(self, size: Size, batch: int = 1, hole: Size | None = None, *, beside_bytes: int = 0) -> bool:
        """Return whether the engine takes images of a size, and the memory suffices for a batch of them.

        Args:
            size: height and width of the images in pixels.
            batch: number of images at once.
            hole: height and width of the part that is filled; None for any part.
            beside_bytes: bytes that are needed beside the engine.

        Returns:
            True if the images can run.
        """
        return self.sizes.covers(*self.pad_size(size)) and self._has_memory(
            self.count_bytes(size, batch, hole) + beside_bytes
        )

    def check_batch(self, batch: int) -> None:
        """Check the number of images.

        Args:
            batch: number of images at once.

        Raises:
            ImageError: the engine does not take so many images at once.
        """
        if self.sizes.max_batch is not None and batch > self.sizes.max_batch:
            raise ImageError(f"{batch} images at once, this engine takes {self.sizes.max_batch}; give fewer at a time")

    def check_size(self, size: Size, tip: str = "") -> None:
        """Check the size of images.

        Args:
            size: height and width of the image in pixels.
            tip: end of the message for an image that tiles could fill.

        Raises:
            ImageError: the engine does not take images of this size.
        """
        padded = self.pad_size(size)
        if self.sizes.covers(*padded):
            return
        note = f" (padded to {_describe(padded)})" if size != padded else ""
        if not self.sizes.static and self.sizes.max == (MAX_SIDE, MAX_SIDE):  # the least size is the network's own
            raise ImageError(
                f"the image is {_describe(size)}{note}; the dilations of this network take from "
                f"{_describe(self.sizes.min)} on: scale the image up"
            )
        raise ImageError(
            f"the image is {_describe(size)}{note}, this engine takes {self.sizes}; export again with "
            f"{_describe_wider_sizes(self.sizes, *padded)}, or without a size"
            + ("" if self.sizes.static else " (of a TensorRT engine: `build()` again with it)")
            + (tip if tiles.list_tile_sizes(self.sizes, size) else "")
        )

    def check_memory(
        self, size: Size, batch: int, subject: str, remedy: str, beside_bytes: int = 0, hole: Size | None = None
    ) -> None:
        """Check the memory that images need.

        Args:
            size: height and width of the images in pixels.
            batch: number of images at once.
            subject: start of the message, for example "the image".
            remedy: end of the message, which says what to do.
            beside_bytes: bytes that are needed beside the engine.
            hole: height and width of the part that is filled; None for any part.

        Raises:
            ImageError: the memory does not suffice.
        """
        needed = self.count_bytes(size, batch, hole) + beside_bytes
        if not self._has_memory(needed):
            several = f", {batch} at once," if batch > 1 else ""
            found = f"{subject} is {_describe(self.pad_size(size))}{several}"
            raise memory.make_shortage_error(needed, self.held_bytes + (self.free_bytes or 0), found, remedy)

    def _has_memory(self, needed: int) -> bool:
        free = self.free_bytes
        return needed <= self.held_bytes or free is None or needed <= free + self.held_bytes


@dataclass(frozen=True)
class Plan:
    """What the network is shown to fill the missing pixels of an image.

    Attributes:
        batches: boxes that run together, batch by batch. The boxes of a batch have one size.
        tiles: holes that tiles fill, with the height and width of the tiles.
        engine_bytes: memory that the engine needs for the largest run.
        beside_bytes: memory that is needed beside the engine.
        images_at_once: images of one mask whose boxes run together.
    """

    batches: list[list[Box]]
    tiles: dict[Span, Size]
    engine_bytes: int
    beside_bytes: int = 0
    images_at_once: int = 1


def check_region(region: str) -> None:
    """Check the name of a region.

    Args:
        region: the name.

    Raises:
        GlamaError: the region does not exist.
    """
    if region not in get_args(Region):
        raise GlamaError(f"`region` is {region!r}; expected {', '.join(get_args(Region))}")


def plan_image(missing: np.ndarray, region: Region, limits: Limits) -> Plan:
    """Plan what the network is shown to fill the missing pixels of an image.

    Args:
        missing: bool H×W, True where a pixel is missing; at least one is.
        region: `full` for the whole image; `crop` for boxes and tiles; `auto` for the better of the two.
        limits: what engine and memory allow.

    Returns:
        Boxes and tiles that together contain every missing pixel.

    Raises:
        ImageError: the image, or the smallest tile of a hole, is too large for the engine or the memory.
    """
    shape, hole = (missing.shape[0], missing.shape[1]), bounding_box(missing).size
    if region == "full":
        limits.check_size(shape, _TILES_TIP)
        limits.check_memory(shape, 1, "the image", f"scale the image down{_TILES_TIP}", hole=hole)
        return _plan_whole(shape, hole, limits)
    can_run, rule = cache(limits.can_run), limits.rule
    found, large = rule.find_boxes(missing)
    large += [box.hole for box in found if not can_run(box.span.size, 1, box.hole.size)]
    small = [box for box in found if can_run(box.span.size, 1, box.hole.size)]
    tiled = _choose_tiles(small, missing, rule, limits.sizes)
    left = [box for box in small if not any(hole.contains(box.hole) for hole in (*tiled, *large))]
    boxes = rule.merge_boxes(left, shape, lambda height, width: can_run((height, width)))
    boxes = rule.share_sizes(boxes, shape, lambda height, width: can_run((height, width)))
    fits = can_run(shape, 1, hole)
    if region == "auto" and not large and fits and not _is_better_than_whole(boxes, tiled, missing, rule):
        return _plan_whole(shape, hole, limits)
    tile_sizes = {hole: size for hole, (size, _) in tiled.items()}
    if large:
        large_sizes = {hole: _choose_tile_size(hole, shape, limits) for hole in large}
        _warn_of_tiles(large_sizes, shape, limits.sizes)
        tile_sizes |= large_sizes
    batches = list(_group_boxes(boxes, limits, can_run))
    return _make_plan(batches, tile_sizes, shape, limits)


def plan_images(missing: np.ndarray, count: int, region: Region, limits: Limits) -> Plan:
    """Plan what a network is shown to fill the missing pixels of several images that share one mask.

    Args:
        missing: bool H×W, True where a pixel is missing; at least one is.
        count: number of images.
        region: as :func:`plan_image` takes it.
        limits: what engine and memory allow.

    Returns:
        The plan of one image, with the number of images whose boxes run together.

    Raises:
        ImageError: as :func:`plan_image` says.
    """
    plan = plan_image(missing, region, limits)
    runs = [(batch[0].span.size, len(batch), _find_batch_hole(batch)) for batch in plan.batches]
    most = limits.sizes.max_batch
    for together in range(count, 1, -1):
        fits = all(most is None or boxes * together <= most for _, boxes, _ in runs)
        if fits and all(limits.can_run(size, boxes * together, hole) for size, boxes, hole in runs):
            needed = [limits.count_bytes(size, boxes * together, hole) for size, boxes, hole in runs]
            return replace(plan, engine_bytes=max([plan.engine_bytes, *needed]), images_at_once=together)
    return plan


def _find_batch_hole(batch: list[Box]) -> Size:
    """Return the size of the part of the boxes that contains the hole of each of them."""
    return unite([box.hole.within(box.span) for box in batch]).size


def plan_batch(size: Size, count: int, limits: Limits) -> Plan:
    """Plan images of one size that are shown whole and at once.

    Args:
        size: height and width of the images in pixels.
        count: number of images.
        limits: what engine and memory allow.

    Returns:
        One batch of whole images.

    Raises:
        ImageError: the images, or their number, are too large for the engine or the memory.
    """
    limits.check_batch(count)
    limits.check_size(size)
    limits.check_memory(size, count, "the image", "scale the image down or cut it into parts")
    return _make_plan([[limits.rule.whole_image(size)] * count], {}, size, limits)


def _plan_whole(shape: Size, hole: Size, limits: Limits) -> Plan:
    return Plan([[limits.rule.whole_image(shape)]], {}, limits.count_bytes(shape, 1, hole))


def _make_plan(batches: list[list[Box]], tile_sizes: dict[Span, Size], shape: Size, limits: Limits) -> Plan:
    """Return a plan with the memory that it needs."""
    runs: list[tuple[Size, int, Size | None]] = [
        (batch[0].span.size, len(batch), _find_batch_hole(batch)) for batch in batches
    ]
    runs += [(size, 1, None) for size in tile_sizes.values()]
    beside = tiles.BYTES_PER_IMAGE_PIXEL * shape[0] * shape[1] if tile_sizes else 0
    return Plan(batches, tile_sizes, max(limits.count_bytes(*run) for run in runs), beside)


def _choose_tiles(
    boxes: list[Box], missing: np.ndarray, rule: Rule, sizes: SizeRange
) -> dict[Span, tuple[Size, float]]:
    """Return the holes that tiles fill for less than half of the cost of their large boxes.

    Returns:
        For each hole the height and width of the tiles, and the cost of all its tiles in pixels.
    """
    chosen = {}
    for box in (box for box in boxes if box.pixels > LARGE_BOX_PIXELS):
        candidates = tiles.list_hole_tile_sizes(sizes, box.hole, (missing.shape[0], missing.shape[1]))
        size = next((size for size in candidates if size[0] * size[1] <= LARGE_BOX_PIXELS), None)
        if size is None:
            continue
        cost = tiles.count_runs(missing, box.hole, size) * rule.cost_of(*size)
        if cost < box.cost / 2:
            log.info("a hole of %dx%d is filled by tiles (%dx%d), which cost less", *box.hole.size, *size)
            chosen[box.hole] = size, cost
    return chosen


def _is_better_than_whole(
    boxes: list[Box], tiled: dict[Span, tuple[Size, float]], missing: np.ndarray, rule: Rule
) -> bool:
    """Return whether boxes and tiles are the better way to fill an image than the whole image."""
    cost = sum(cost for _, cost in tiled.values()) + total_cost(boxes)
    pixels = [*(box.pixels for box in boxes), *(size[0] * size[1] for size, _ in tiled.values())]
    return rule.is_better_than_whole(cost, missing.shape, max(pixels, default=0))


def _group_boxes(boxes: list[Box], limits: Limits, can_run: Callable[[Size, int], bool]) -> Iterator[list[Box]]:
    """Return the boxes in batches of one size. Boxes for which the memory does not suffice together run one by one."""
    for group in group_by_size(boxes, 1 if limits.compiles_sizes else limits.sizes.max_batch):
        if len(group) == 1 or can_run(group[0].span.size, len(group)):
            yield group
        else:
            yield from ([box] for box in group)


def _choose_tile_size(hole: Span, shape: Size, limits: Limits) -> Size:
    """Return the largest tile of a hole that engine and memory allow.

    Raises:
        ImageError: the smallest tile is too large for the memory, or the image is too small for the engine.
    """
    beside = tiles.BYTES_PER_IMAGE_PIXEL * shape[0] * shape[1]
    sizes = tiles.list_hole_tile_sizes(limits.sizes, hole, shape)
    for size in sizes:
        if limits.can_run(size, beside_bytes=beside):
            return size
    smallest, subject = (sizes[-1], "what is looked at around a hole") if sizes else (shape, "the image")
    limits.check_size(smallest)
    limits.check_memory(smallest, 1, subject, "scale the image down or cut it into parts", beside)
    return smallest


def _warn_of_tiles(tile_sizes: dict[Span, Size], shape: Size, sizes: SizeRange) -> None:
    """Log that holes do not fit and are filled by tiles, with the reason and what the user can do.

    Args:
        tile_sizes: the holes, with the height and width of their tiles.
        shape: height and width of the image.
        sizes: sizes that the engine takes.
    """
    hole = max(tile_sizes, key=lambda span: span.size[0] * span.size[1])
    size, context = tile_sizes[hole], 2 * context_margin(hole)
    wanted = (min(side + context, extent) for side, extent in zip(hole.size, shape, strict=True))
    reason, remedy = "the free memory", "scale the image down"
    if any(next_side(side) > most for side, most in zip(wanted, sizes.max, strict=True)):
        reason = f"this engine, which takes {sizes},"
        remedy = f"export {'without `size`' if sizes.static else 'with a larger `max_size`'}"
    log.warning(
        "a hole of %s with its context does not fit %s and is filled by tiles (%s, up to %d); to fill it at once %s",
        _describe(hole.size),
        reason,
        _describe(size),
        len(tiles.cover_hole(hole, shape, size)),
        remedy,
    )


def _describe(size: Size) -> str:
    return f"{size[0]}x{size[1]}"


def _describe_wider_sizes(sizes: SizeRange, height: int, width: int) -> str:
    """Return the fields of an export that make an engine take this size, too."""
    low = min(next_side(height), sizes.min[0]), min(next_side(width), sizes.min[1])
    high = max(next_side(height), sizes.max[0]), max(next_side(width), sizes.max[1])
    if sizes.static:
        return f"`size={next_side(height)}x{next_side(width)}`"
    bounds = [("min_size", low, sizes.min), ("max_size", high, sizes.max)]
    return " ".join(f"`{field}={_describe(side)}`" for field, side, bound in bounds if side != bound)
