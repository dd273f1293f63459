"""The options that say which pixels are missing, which glama-inpaint and glama-mask share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, cast

from glama_deploy.cli.entry import option
from glama_deploy.errors import GlamaError
from glama_deploy.inpainting.folder import Masks
from glama_deploy.inpainting.mask_edits import MaskEdits
from glama_deploy.io.mask_files import MaskRule, MaskSource
from glama_deploy.marking.annotations import read_annotations
from glama_deploy.marking.colors import parse_color
from glama_deploy.marking.marks import Marks
from glama_deploy.marking.rectangles import Rectangle

#: An option that stands under its own heading in the help.
mask_option = partial(option, rich_help_panel="Missing pixels: all that these options and --mask mark")


@dataclass(frozen=True)
class MaskOptions:
    """The options that say which pixels are missing, as the command line has them."""

    box: Annotated[
        list[str] | None,
        mask_option(
            "--box",
            help="x,y,w,h: a rectangle in pixels of the upright picture, from its top left corner. May be given "
            "several times.",
        ),
    ] = None
    color: Annotated[
        list[str] | None,
        mask_option(
            "--color",
            help="#rrggbb or a name such as white: pixels of this color are missing. May be given several times.",
        ),
    ] = None
    color_tolerance: Annotated[
        int, mask_option("--color-tolerance", help="Largest difference to --color in each channel, 0 to 255.")
    ] = 0
    annotations: Annotated[
        Path | None,
        mask_option(
            "--annotations",
            help="Objects that are missing: a JSON file of COCO (instances) or LabelMe, or a folder of them. Pictures "
            "are found by the names of their files.",
        ),
    ] = None
    category: Annotated[
        list[str] | None,
        mask_option(
            "--category", help="Take this category of --annotations (default: all). May be given several times."
        ),
    ] = None
    grow: Annotated[
        int,
        mask_option("--grow", help="Pixels by which holes grow, so that an object's edge and shadow are filled, too."),
    ] = 0
    shrink: Annotated[int, mask_option("--shrink", help="Pixels by which holes shrink before they grow.")] = 0
    mask_from: Annotated[
        str,
        mask_option(
            "--mask-from",
            help="What marks missing pixels in a mask file. auto: bright pixels, or paint on a transparent layer. "
            "alpha: opaque pixels. inverse-alpha: transparent pixels. luma, red: bright pixels of this channel.",
        ),
    ] = "auto"
    threshold: Annotated[
        int | None,
        mask_option(
            "--threshold",
            help="Pixels of a mask file above this value, 0 to 254, are missing (soft edges and gray by default).",
        ),
    ] = None
    invert: Annotated[bool, mask_option("--invert", help="The mask file is black where pixels are missing.")] = False

    @property
    def has_marks(self) -> bool:
        """Whether an option other than a mask file marks pixels."""
        return bool(self.box or self.color or self.annotations)

    def read(self, mask: Path | None, feather: int = 0, *, has_own: bool = False) -> Masks:
        """Read the options, and the annotations.

        Args:
            mask: the option `--mask`.
            feather: pixels of the holes' rim that are blended.
            has_own: whether the pictures bring masks with them.

        Returns:
            How masks are made.

        Raises:
            GlamaError: an option is not valid, the annotations cannot be read, or no pixel is marked.
        """
        rule = MaskRule(cast(MaskSource, self.mask_from), self.threshold, self.invert)
        edits = MaskEdits(self.grow, self.shrink, feather)
        marks = Marks(
            tuple(map(Rectangle.parse, self.box or ())),
            tuple(map(parse_color, self.color or ())),
            self.color_tolerance,
            read_annotations(self.annotations) if self.annotations is not None else None,
            tuple(self.category or ()),
        )
        if mask is None and not marks and not has_own:
            raise GlamaError("no pixel is marked as missing; give `mask`, `box`, `color` or `annotations`")
        if mask is None and rule != MaskRule() and not has_own:
            raise GlamaError("`mask_from`, `threshold` and `invert` are for mask files; give `mask`, or leave them out")
        return Masks(rule, edits, marks)
