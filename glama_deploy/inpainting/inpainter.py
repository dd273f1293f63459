"""Image in, image out: checks, the plan, the network, compositing. Knows no engine by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from glama_deploy.bundle import SizeRange
from glama_deploy.cost import long_side
from glama_deploy.errors import EngineError, ImageError
from glama_deploy.inpainting import kinds, tiles
from glama_deploy.inpainting.boxes import BOX_OVERHEAD_PIXELS, Box, Span, bounding_box, unite
from glama_deploy.inpainting.engine_memory import Budget, EngineMemory, Picture
from glama_deploy.inpainting.padding import compute_padding
from glama_deploy.inpainting.planner import Limits, Plan, plan_batch, plan_images
from glama_deploy.inpainting.planner import Region as Region
from glama_deploy.inpainting.planner import check_region as check_region
from glama_deploy.inpainting.tensors import match_depth, measure_frames, to_images, to_tensors
from glama_deploy.inpainting.windows import find_window
from glama_deploy.io.deep import reduce_depth
from glama_deploy.network import MAX_SIDE, MIN_SIDE, SIZE_MULTIPLE, NetworkConfig, next_side
from glama_deploy.node_names import INPAINTED, PREDICTED
from glama_deploy.runtime.base import DeviceKind, Runner
from glama_deploy.runtime.calls import check_not_forked, native_call
from glama_deploy.runtime.cuda.exchange.device_arrays import find_shape, is_on_device

if TYPE_CHECKING:
    from typing_extensions import Self  # typing has it from Python 3.11 on

#: An image of any kind. The result has the same kind.
_Image = TypeVar("_Image")


class Inpainter:
    """Fills the missing pixels of images with one open engine. :func:`glama_deploy.load` makes an inpainter.

    An inpainter may be called from several threads. `streams` says how many of them are served at once. As a context
    manager it is closed at the end of the block. A pickled inpainter is opened again from its path, with the same
    arguments. A process that was forked from one with an inpainter cannot use it: start processes with `spawn`.
    """

    def __init__(self, runner: Runner, network: NetworkConfig) -> None:
        """Wrap an open engine.

        Args:
            runner: the engine.
            network: the configuration of the engine's network.
        """
        self._engine: tuple[Runner, EngineMemory] | None = (runner, EngineMemory(runner))
        self._network = network
        self._changed = threading.Condition()
        self._calls_under_way = 0
        self._is_closing = False
        #: The function that opens this inpainter again, and its arguments; None for one that was made by hand.
        self._reopen: tuple[Callable[..., Inpainter], tuple[Any, ...]] | None = None

    def remember_opening(self, function: Callable[..., Inpainter], *arguments: object) -> None:
        """Remember how this inpainter was opened, so that it can be pickled.

        Args:
            function: the function that opens it.
            *arguments: the arguments of the function.
        """
        self._reopen = function, arguments

    def __reduce__(self) -> tuple[Callable[..., Inpainter], tuple[Any, ...]]:
        if self._reopen is None:
            raise EngineError(
                "this inpainter was not opened by glama_deploy.load, and cannot be pickled; load the model in the "
                "other process"
            )
        self._check_open()
        return self._reopen

    def close(self) -> None:
        """Give back the engine and its memory, after the calls that are under way in other threads.

        Later calls raise EngineError. A closed inpainter may be closed again.
        """
        check_not_forked()
        with self._changed:
            self._is_closing = True
            self._changed.wait_for(lambda: not self._calls_under_way)
            engine, self._engine = self._engine, None
        if engine is not None:
            with native_call():
                engine[0].close()

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self.close()

    def _check_open(self) -> tuple[Runner, EngineMemory]:
        """Return the engine and its memory. Raises EngineError if the inpainter is closed."""
        engine = self._engine
        if engine is None:
            raise EngineError("the inpainter is closed; open the model again with glama_deploy.load")
        return engine

    @contextmanager
    def _calling(self) -> Iterator[None]:
        """Keep the engine open during a call."""
        check_not_forked()  # a lock may be held for ever in a forked process
        with self._changed:
            if self._is_closing:
                raise EngineError("the inpainter is closed; open the model again with glama_deploy.load")
            self._calls_under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._calls_under_way -= 1
                self._changed.notify_all()

    @property
    def _runner(self) -> Runner:
        return self._check_open()[0]

    @property
    def _memory(self) -> EngineMemory:
        return self._check_open()[1]

    @property
    def network(self) -> NetworkConfig:
        """The configuration of the network."""
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
    def precisions(self) -> tuple[str, ...]:
        """The precisions that :func:`glama_deploy.load` can open this model in, with this engine and machine."""
        return self._runner.precisions or (self._runner.precision,)

    @property
    def sizes(self) -> SizeRange:
        """The (height, width) in pixels that the engine takes, multiples of 8, and the number of images at once."""
        return self._runner.sizes

    @property
    def streams(self) -> int:
        """The number of threads that are served at once."""
        return self._runner.streams

    def __call__(self, image: _Image, mask: object, *, region: Region = "auto") -> _Image:
        """Fill the missing pixels of an image.

        With `auto` and `crop`, tiles (:mod:`glama_deploy.inpainting.tiles`) fill a hole whose box is too large for the
        engine or the memory. The hole is then logged as a warning. Tiles also fill a long hole for which they cost less
        than half of its box.

        A TensorRT engine with uint8 tensors reads uint8 H×W×3 and its mask where they lie in GPU memory
        (`__cuda_array_interface__` or DLPack: CuPy, PyCUDA, PyTorch). The network is then shown the whole image.
        :meth:`run_on_gpu` also leaves the result in GPU memory.

        Args:
            image: RGB H×W×3, RGBA H×W×4 or gray H×W; both sides from 16 to 16384 pixels. A NumPy array, in any memory
                order; a PIL image of mode L, I;16, LA, RGB or RGBA; a CuPy array; a PyTorch tensor, also 3×H×W, 4×H×W
                and 1×H×W. The dtype is uint8 (0…255), uint16 (0…65535), or float16, float32, float64 or PyTorch's
                bfloat16 with known values from 0 to 1. Of float images the network is shown 8 bits, so their filled
                values are multiples of 1/255.
            mask: H×W; a pixel above 0 is missing. bool or uint8, or float of 0 and 1 only. A NumPy array, a PIL image
                of mode 1 or L, a CuPy array, or a PyTorch tensor, also 1×H×W.
            region: what the network is shown. `full` is the whole image. `crop` is boxes around the holes
                (:mod:`glama_deploy.inpainting.boxes`). `auto` takes boxes where the image is too large for the engine
                or the memory, or where boxes cost clearly less. Above one megapixel, boxes need only cost less. Above
                four megapixels, small boxes may cost up to twice as much.

        Returns:
            The filled image: the kind, shape, dtype and device of `image`. Pixels that are not missing come back
            bit-exact. Missing pixels of a uint16 image have 16 bits where the graph's tensors are float, and else 8
            bits, as have those of tiles. For a PyCUDA array, a NumPy array.

        Raises:
            GlamaError: `region` is unknown.
            ImageError: the image or the mask is not as described, or is too large for the engine or the memory.
            EngineError: the engine fails, or the inpainter is closed.
        """
        check_region(region)
        with self._calling():
            filled: Any
            if self._reads_where_it_lies(image, mask):
                filled = kinds.put_beside(image, self._read_on_device(image, mask, INPAINTED))
                return filled
            holes = kinds.take_mask(mask)
            if kinds.is_plain(image):
                plain: Any = image
                filled = self._fill_plain(plain, check(plain, holes), region)
                return filled
            taken = kinds.take_image(image)
            missing = check(taken.values, holes)
            fill = lambda rgb, mask: self._fill_plain(rgb, mask, region)  # noqa: E731
            filled = taken.give_back(kinds.fill_values(fill, taken.values, missing))
            return filled

    async def run_async(self, image: _Image, mask: object, *, region: Region = "auto") -> _Image:
        """Fill the missing pixels of an image in a thread, so that an event loop goes on meanwhile.

        A run cannot be interrupted: if the awaiting task is cancelled, the run ends by itself, and its result is lost.

        Args:
            image: the image, as :meth:`__call__` takes it.
            mask: the mask, as :meth:`__call__` takes it.
            region: what the network is shown, as :meth:`__call__` takes it.

        Returns:
            The filled image, as :meth:`__call__` returns it.

        Raises:
            GlamaError: as :meth:`__call__` says.
        """
        import asyncio

        return await asyncio.to_thread(self, image, mask, region=region)

    def _reads_where_it_lies(self, image: object, mask: object) -> bool:
        """Return whether the engine shall read an image and a mask in GPU memory.

        Tensors of PyTorch and CuPy that this engine cannot read there are copied to main memory instead.
        """
        if not is_on_device(image) and not is_on_device(mask):
            return False
        if not {kinds.find_package(value) for value in (image, mask)} & {"torch", "cupy"}:
            return True
        reads = self._runner.takes_device_arrays and self._runner.io == "uint8"
        shape, dtype = tuple(getattr(image, "shape", ())), str(getattr(image, "dtype", "")).rpartition(".")[2]
        is_form = len(shape) == 3 and shape[2] == 3 and dtype == "uint8" and self._pad(*shape[:2]) == (0, 0)
        return reads and is_form and is_on_device(image) and is_on_device(mask)

    def _fill_plain(self, image: np.ndarray, missing: np.ndarray, region: Region) -> np.ndarray:
        """Fill the missing pixels (bool H×W) of an image (uint8 or uint16 H×W×3)."""
        return self._fill_plain_images(image[None], missing, region)[0]

    def _fill_plain_images(self, images: np.ndarray, missing: np.ndarray, region: Region) -> np.ndarray:
        """Fill the missing pixels (bool H×W) of images (uint8 or uint16 B×H×W×3) that share one mask."""
        results = images.copy()
        if not missing.any():
            return results
        with self._admit(lambda limits: plan_images(missing, len(images), region, limits)) as (plan, picture):
            for start in range(0, len(images), plan.images_at_once):
                some = slice(start, start + plan.images_at_once)
                self._follow_plan(plan, picture, images[some], missing, results[some])
        return results

    def _follow_plan(
        self, plan: Plan, picture: Picture, images: np.ndarray, missing: np.ndarray, results: np.ndarray
    ) -> None:
        """Fill images as a plan says, all at once. `results`, which begin as the images, are changed."""
        left = missing.copy()
        for batch in plan.batches:
            holes = [box.hole.within(box.span) for box in batch]
            shown = np.concatenate([_crop(image, batch) for image in images])
            masks = np.concatenate([_crop(missing, batch)] * len(images))
            parts = self._fill(picture, shown, masks, unite(holes)).reshape(len(images), len(batch), *shown.shape[1:])
            for number, (box, hole) in enumerate(zip(batch, holes, strict=True)):
                _composite(results, left, box.hole, parts[:, number][hole.batch_slices])
        shown = reduce_depth(images) if plan.tiles else images  # tiles are blended at 8 bits
        for hole, size in plan.tiles.items():
            run = self._make_tile_run(picture)
            filled = np.stack([tiles.fill_hole(image, missing, hole, size, run) for image in shown])
            _composite(results, left, hole, match_depth(filled, images.dtype))

    def fill_frames(self, images: np.ndarray, mask: np.ndarray, *, region: Region = "auto") -> np.ndarray:
        """Fill the missing pixels of several images that share one mask, such as frames of a video.

        The boxes around the holes are planned once. The same box of all images is one batch, as far as the engine and
        the memory allow.

        Args:
            images: uint8 or uint16 B×H×W×3, RGB; at least one image.
            mask: bool or uint8 H×W; a pixel above 0 is missing in every image.
            region: what the network is shown, as :meth:`__call__` takes it.

        Returns:
            B×H×W×3 of the images' type. Pixels that are not missing come back bit-exact.

        Raises:
            GlamaError: `region` is unknown.
            ImageError: the images or the mask are not as described, or are too large for the engine or the memory.
            EngineError: the engine fails, or the inpainter is closed.
        """
        check_region(region)
        with self._calling():
            if getattr(images, "ndim", 0) != 4 or not len(images):
                raise ImageError("images of batch × height × width × 3 are expected, at least 1")
            _check_plain_images(images)
            return self._fill_plain_images(images, check(images[0], kinds.take_mask(mask)), region)

    def batch(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        """Fill the missing pixels of several images at once. The network is shown whole images.

        Args:
            images: uint8 or uint16 B×H×W×3, RGB; at least one image, and no more than the engine takes at once.
            masks: bool or uint8 B×H×W; a pixel above 0 is missing.

        Returns:
            B×H×W×3 of the images' type. Pixels that are not missing come back bit-exact.

        Raises:
            ImageError: the images or masks are not as described, or are too many or too large for the engine or the
                memory.
            EngineError: the engine fails.
        """
        with self._calling():
            return self._fill_batch(images, masks)

    def _fill_batch(self, images: np.ndarray, masks: np.ndarray) -> np.ndarray:
        dimensions = getattr(images, "ndim", 0), getattr(masks, "ndim", 0)
        if dimensions != (4, 3) or len(images) != len(masks) or not len(images):
            raise ImageError(
                "as many images (batch × height × width × 3) as masks (batch × height × width) are expected, at least 1"
            )
        _check_plain_images(images)
        missing = np.stack([check(image, kinds.take_mask(mask)) for image, mask in zip(images, masks, strict=True)])
        count, height, width = missing.shape
        with self._admit(lambda limits: plan_batch((height, width), count, limits)) as (_, picture):
            return self._fill(picture, images.copy(), missing, Span(0, 0, height, width))

    def run_on_gpu(self, image: Any, mask: Any, *, out: Any = None, stream: Any = None) -> Any:
        """Fill the missing pixels of frames that lie in GPU memory, and leave the result there. For TensorRT engines.

        The network is shown whole frames, and the graph composites: there are no boxes, no tiles and no padding. The
        arrays have `__cuda_array_interface__` or DLPack, as those of CuPy, PyTorch and PyCUDA, and are in C order.

        With a stream, the run comes after all work that is in the stream, and later work in the stream comes after the
        run. The host does not wait, except in the first runs of a size or of new arrays, while four runs are under way,
        and once in four runs without `out`. Without a stream, the method returns when the run is done.

        Args:
            image: with io uint8, uint8 H×W×3 or B×H×W×3, RGB; with io float, float32 3×H×W or B×3×H×W from 0 to 1. The
                engine takes these sides.
            mask: with io uint8, uint8 or bool H×W or B×H×W, above 0 where a pixel is missing; with io float, float32
                1×H×W or B×1×H×W, 1 where a pixel is missing.
            out: the array that is written, of the image's shape and type; None for a new one. It may be the image.
                TensorRT's run at fixed arrays is replayed as a CUDA graph.
            stream: a handle, a stream of PyTorch, CuPy or PyCUDA, or an object with `__cuda_stream__`.

        Returns:
            `out`, or an array with `__cuda_array_interface__` and DLPack, of the image's shape and type. The array owns
            its memory, also after :meth:`close`.

        Raises:
            ImageError: the shapes do not fit, or the frames are too large for the engine or the memory.
            EngineError: the engine is not TensorRT's, an array lies elsewhere, has another type or is not in C order,
                `out` is read-only, the stream is not one, the engine fails, or the inpainter is closed.
        """
        with self._calling():
            if not self._runner.takes_device_arrays:
                raise EngineError(
                    f"{self.description} does not read GPU memory; copy the frames to main memory "
                    "(cupy.asnumpy(image), image.cpu()) and call the inpainter, or open a TensorRT engine"
                )
            for name, array in (("image", image), ("mask", mask), ("out", out)):
                if not is_on_device(array) and not (array is None and name == "out"):
                    raise EngineError(
                        f"{name} is a {type(array).__name__} that does not lie on a GPU; copy it there, or call the "
                        "inpainter for arrays in main memory"
                    )
            with self._frames_on_device(image, mask):
                return self._runner.run_on_device(image, mask, out, stream)

    def predict(self, image: Any, mask: object) -> Any:
        """Return the network's output before compositing. The network is shown the whole image.

        Args:
            image: the image, as :meth:`__call__` takes it, without an alpha channel.
            mask: the mask, as :meth:`__call__` takes it.

        Returns:
            float32 H×W×3 (RGB), from 0 to 1: a NumPy array; for a PyTorch tensor or a CuPy array one of its kind, 3×H×W
            if the image has its channels first.

        Raises:
            ImageError: the image or the mask is not as described, or is too large for the engine or the memory.
            EngineError: the engine fails, the bundle has no output `predicted`, or the inpainter is closed.
        """
        with self._calling():
            if self._reads_where_it_lies(image, mask):
                predicted = self._read_on_device(image, mask, PREDICTED)
                self._check_finite(predicted)
                return kinds.put_beside(image, predicted)
            taken, holes = kinds.take_image(image), kinds.take_mask(mask)
            missing = check(taken.values, holes)
            if taken.values.ndim == 3 and taken.values.shape[2] == 4:
                raise ImageError(
                    "the image has an alpha channel, which the network does not predict; pass the RGB part"
                )
            size = missing.shape[0], missing.shape[1]
            rgb = kinds.to_rgb(taken.values, missing)
            with self._admit(lambda limits: plan_batch(size, 1, limits)) as (_, picture):
                predicted = self._run(picture, rgb[None].copy(), missing[None], PREDICTED)[0]
            self._check_finite(predicted)
            return taken.give_back(np.ascontiguousarray(predicted))

    def _admit(self, make_plan: Callable[[Limits], Plan]) -> AbstractContextManager[tuple[Plan, Picture]]:
        """Plan with the memory that is there, and keep the memory of the plan until the block ends.

        Args:
            make_plan: returns the plan for limits, or raises ImageError.

        Returns:
            A context manager of the plan, and of the picture in flight that runs belong to.
        """
        return self._memory.admit(lambda budget: make_plan(self._limit(budget)))

    def _fill(self, picture: Picture, images: np.ndarray, missing: np.ndarray, hole: Span) -> np.ndarray:
        """Fill the missing pixels of a hole.

        Args:
            picture: the picture in flight that the run belongs to.
            images: uint8 or uint16 [B, H, W, 3], which are changed.
            missing: bool [B, H, W], True where a pixel is missing, inside and outside of the hole.
            hole: the part of the images whose missing pixels are filled.

        Returns:
            The images.
        """
        inside = missing[hole.batch_slices]
        if not inside.any():
            return images
        needed = bounding_box(np.logical_or.reduce(inside, axis=0)).moved(hole.top, hole.left)
        filled, window = self._run_around(picture, images, missing, needed)
        here = missing[needed.batch_slices]
        images[needed.batch_slices][here] = self._match_depth(
            filled[needed.within(window).batch_slices][here], images.dtype
        )
        return images

    def _run_around(
        self, picture: Picture, images: np.ndarray, missing: np.ndarray, needed: Span
    ) -> tuple[np.ndarray, Span]:
        """Run the network, and compute the output around the pixels that are needed, where the engine can do so.

        Args:
            picture: the picture in flight that the run belongs to.
            images: uint8 or uint16 [B, H, W, 3].
            missing: bool [B, H, W], True where a pixel is missing.
            needed: the part of the output that is needed.

        Returns:
            The output `inpainted` in a window, as `_run` returns it, and the window.
        """
        _, height, width = missing.shape
        if not self._runner.takes_windows:
            return self._run(picture, images, missing, INPAINTED), Span(0, 0, height, width)
        window = find_window(needed, (next_side(height), next_side(width)), self._network)
        return self._run(picture, images, missing, INPAINTED, window), window

    def _run(
        self, picture: Picture, images: np.ndarray, missing: np.ndarray, output: str, window: Span | None = None
    ) -> np.ndarray:
        """Run the network.

        Args:
            picture: the picture in flight that the run belongs to.
            images: uint8 or uint16 [B, H, W, 3].
            missing: bool [B, H, W], True where a pixel is missing.
            output: `inpainted` or `predicted`.
            window: the part of the output `inpainted` that is computed; None for the whole output.

        Returns:
            [B, h, w, 3] without padding: float32 from 0 to 1, or uint8 where the graph gives bytes.
        """
        batch, height, width = missing.shape
        io, (bottom, right) = self._runner.io, self._pad(height, width)
        inputs = to_tensors(images, missing, io, (bottom, right))
        needed = self._runner.memory_needed((height + bottom, width + right), batch, window.size if window else None)
        with self._memory.run(picture, needed), native_call():
            if window is None:
                return to_images(self._runner.run(*inputs, output), io, height, width)
            result = self._runner.run_window(*inputs, (window.top, window.left, window.bottom, window.right))
            return to_images(result, io, height - window.top, width - window.left)

    def _limit(self, budget: Budget) -> Limits:
        """Return the limits of this engine and network with a budget of memory."""
        coarse_pixels = self._network.coarse_side**2 if self._network.coarse is not None else 0
        return Limits(
            self._runner.sizes,
            self._runner.io,
            self._runner.memory_needed,
            budget.free_bytes,
            budget.held_bytes,
            compiles_sizes=self._runner.compiles_sizes,
            overhead_pixels=BOX_OVERHEAD_PIXELS + coarse_pixels,
            fourier_cost=long_side(self._network),
            windowed=self._network if self._runner.takes_windows else None,
        )

    def _make_tile_run(self, picture: Picture) -> tiles.Run:
        """Return the function that fills one tile."""
        return lambda image, missing: self._fill(
            picture, image[None].copy(), missing[None], Span(0, 0, *missing.shape)
        )[0]

    def _pad(self, height: int, width: int) -> tuple[int, int]:
        """Return the rows and columns that are added to an image of this size."""
        return compute_padding(height, width, self._runner.io, self._runner.sizes)

    def _read_on_device(self, image: Any, mask: Any, output: str) -> np.ndarray:
        """Run the network on an image and a mask that lie on the GPU, and read both where they lie.

        Args:
            image: uint8 H×W×3 in GPU memory.
            mask: bool or uint8 H×W in GPU memory.
            output: `inpainted` or `predicted`.

        Returns:
            H×W×3 in main memory: uint8 for `inpainted`, float32 for `predicted`.
        """
        if not self._runner.takes_device_arrays or self._runner.io != "uint8":
            raise ImageError(
                f"the image or mask lies on a GPU, which {self.description} does not read; pass numpy arrays, or "
                "export with `io=uint8` for TensorRT"
            )
        if not is_on_device(image) or not is_on_device(mask):
            raise ImageError("of image and mask one lies on the GPU and one does not; put both in one place")
        if len(find_shape(image)) > 3:
            raise ImageError("a batch on the GPU is filled by run_on_gpu; pass one image")
        with self._frames_on_device(image, mask):
            return self._runner.run(image, mask, output)[0]

    @contextmanager
    def _frames_on_device(self, image: Any, mask: Any) -> Iterator[None]:
        """Check the shapes of frames in GPU memory, and keep the memory of their run until the block ends."""
        batch, height, width = measure_frames(find_shape(image), find_shape(mask), self._runner.io)
        check_sides(height, width)
        if self._pad(height, width) != (0, 0):
            raise ImageError(
                f"the image is {height}x{width} and lies on the GPU, where it is not padded; export with `io=uint8` "
                f"and without `size`, or give sides that are multiples of {SIZE_MULTIPLE}"
            )
        needed = self._runner.memory_needed((height, width), batch)
        with (
            self._memory.admit(lambda budget: plan_batch((height, width), batch, self._limit(budget))) as (_, picture),
            self._memory.run(picture, needed),
            native_call(),
        ):
            yield

    def _match_depth(self, filled: np.ndarray, depth: np.dtype) -> np.ndarray:
        """Return an output in the type of its image. An output from 0 to 1 is taken over and changed."""
        if filled.dtype != np.uint8:
            self._check_finite(filled)
        return match_depth(filled, depth)

    def _check_finite(self, values: np.ndarray) -> None:
        """Raise EngineError if a value is infinite or not a number."""
        if not np.isfinite(values).all():
            raise EngineError(
                f"{self.description} gave values that are not finite; nothing was written: use another backend or "
                "precision fp32, and report the image"
            )


def _crop(values: np.ndarray, batch: list[Box]) -> np.ndarray:
    """Return the parts of an image or a mask (H×W…) that boxes of one size show, as one batch (B×H×W…)."""
    return np.stack([values[box.span.slices] for box in batch])


def _composite(results: np.ndarray, left: np.ndarray, hole: Span, filled: np.ndarray) -> None:
    """Write a filled hole into the results, as far as its pixels are still missing.

    Args:
        results: uint8 or uint16 B×H×W×3, which are changed.
        left: bool H×W, the pixels that are still missing, which is changed. Where holes overlap, the first fills.
        hole: the hole in the images.
        filled: pixels of the hole's bounding box, B×h×w×3 of the results' type.
    """
    here = left[hole.slices]
    for result, pixels in zip(results, filled, strict=True):
        result[hole.slices][here] = pixels[here]
    here[:] = False


def _check_plain_images(images: np.ndarray) -> None:
    """Raise ImageError for images (B×H×W×C) that are not of a plain kind."""
    if not isinstance(images, np.ndarray) or images.dtype not in kinds.SHOWN_DTYPES or images.shape[3] != 3:
        found = f"{getattr(images, 'dtype', '')} {list(images.shape)}"
        raise ImageError(
            f"the images are {found}; a numpy array, uint8 or uint16 batch × height × width × 3, is expected"
        )


def check(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Check the sides of an image, and its mask.

    Args:
        image: the image, H×W or H×W×C.
        mask: the mask, as :func:`glama_deploy.inpainting.kinds.take_mask` returns it.

    Returns:
        The mask as bool H×W, True where a pixel is missing.

    Raises:
        ImageError: the image or the mask is not as `Inpainter` takes it.
    """
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
    """Check the sides of an image.

    Args:
        height: height of the image in pixels.
        width: width of the image in pixels.

    Raises:
        ImageError: a side is not supported.
    """
    if min(height, width) < MIN_SIDE or max(height, width) > MAX_SIDE:
        raise ImageError(
            f"the image is {height}x{width}; both sides must be from {MIN_SIDE} to {MAX_SIDE} pixels: scale or cut it"
        )
