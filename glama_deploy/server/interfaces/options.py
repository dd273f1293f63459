"""The options that a client of our own interface gives beside a picture and its mask."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from glama_deploy.inpainting.inpainter import Region
from glama_deploy.server.work.engine import Choice
from glama_deploy.server.work.filling import Format, Task


class Options(BaseModel):
    """The options of a picture or a batch. `docs/serving.md` explains them."""

    model_config = ConfigDict(extra="forbid")

    region: Region = "auto"
    model: str | None = None
    precision: str | None = None
    format: Format = "same"
    quality: Annotated[int, Field(ge=1, le=100)] | None = None
    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_.-]{1,64}$")] | None = None

    def make_task(self, image: bytes, mask: bytes) -> Task:
        """Return the task of a picture with these options.

        Args:
            image: the bytes of the picture's file.
            mask: the bytes of the mask's file.

        Returns:
            The task.
        """
        return Task(image, mask, self.region, Choice(self.model, self.precision), self.format, self.quality)
