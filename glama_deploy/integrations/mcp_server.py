"""A server of the Model Context Protocol (MCP): tools by which an assistant fills pictures.

The client starts the server as a process and speaks with it over standard input and output. The server reads the files
that a call names, and writes the file that a call names as `output`.
"""

from __future__ import annotations

import base64
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from mcp.server.mcpserver import Context, MCPServer
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import CallToolResult, ImageContent, InputRequiredResult, TextContent, ToolAnnotations
from pydantic import BaseModel, Field, ValidationError

from glama_deploy import __version__
from glama_deploy.errors import GlamaError, ImageError
from glama_deploy.inpainting import folder
from glama_deploy.inpainting.inpainter import Inpainter
from glama_deploy.inpainting.mask_edits import MaskEdits
from glama_deploy.inpainting.pairing import Job
from glama_deploy.inpainting.piped import find_suffix
from glama_deploy.io.files import check_overwrite, check_path, check_writable
from glama_deploy.io.images import ENCODERS, encode_image
from glama_deploy.io.pipes import PipedFile, Source, check_no_address
from glama_deploy.marking.marks import Marks
from glama_deploy.marking.rectangles import Rectangle
from glama_deploy.text.base64_files import decode_base64, is_data_url
from glama_deploy.text.excerpts import excerpt

#: The longest path in characters. A longer text is a file in base64 that is not a data URL.
_MAX_PATH_CHARACTERS = 4096

#: A longer path is shortened in messages.
_MAX_SHOWN_CHARACTERS = 200

#: Seconds after which a wait begins again.
_WAIT_SECONDS = 1.0

#: Formats, by Pillow's names, in which clients show a picture. A picture of another format is sent as a PNG.
_SHOWN_FORMATS = ("JPEG", "PNG", "WEBP")

_FILE_FORM = "Absolute path, or a data URL (data:image/png;base64,…)."

_PURPOSE = "Fill a part of a picture from its surroundings, for example to remove an object from a photograph."

_INSTRUCTIONS = (
    f"{_PURPOSE} Give a mask, or boxes in pixels of the upright picture, that cover the object with its shadow. Other "
    "pixels do not change."
)

ImageField = Annotated[str, Field(description=f"The picture. {_FILE_FORM}")]
MaskField = Annotated[
    str | None, Field(description=f"Mask of the picture's proportions; white pixels are filled. {_FILE_FORM}")
]
BoxField = Annotated[list[int], Field(min_length=4, max_length=4)]
BoxesField = Annotated[
    list[BoxField] | None, Field(description="Rectangles to fill, each [left, top, width, height] in pixels.")
]
GrowField = Annotated[int, Field(description="Pixels by which the filled area grows on all sides.")]
ModelField = Annotated[
    str | None, Field(description="Name of a model that list_models shows. Without a name, the first one.")
]
OutputField = Annotated[
    str | None,
    Field(description="Absolute path of the filled picture (.png, .jpg, …). Without a path, the picture is returned."),
]
OverwriteField = Annotated[bool, Field(description="Whether a file at the output's path is replaced.")]


def _show(text: str) -> str:
    """Return what a client wrote, on one line."""
    return excerpt(text, _MAX_SHOWN_CHARACTERS)


class OfferedModel(BaseModel):
    """A model that a client may name.

    Attributes:
        name: the name.
        is_default: whether the model is used without a name.
        engine: the engine, its version, device and precision; None while the model is not open.
    """

    name: str
    is_default: bool
    engine: str | None


class Models:
    """The models of a server. One is open at a time, because an engine takes much memory.

    Args:
        sources: what `open_model` takes, by the names that clients use. The first is the default.
        open_model: opens a model.
    """

    def __init__(self, sources: Mapping[str, str], open_model: Callable[[str], Inpainter]) -> None:
        self._sources, self._open_model = dict(sources), open_model
        self._lock = threading.Lock()
        self._opened: tuple[str, Inpainter] | None = None

    @contextmanager
    def use(self, name: str | None) -> Iterator[Inpainter]:
        """Open a model unless it is open, and keep it open for the block. Other blocks wait.

        Args:
            name: the model's name; None: the default.

        Yields:
            The inpainter.

        Raises:
            GlamaError: no model has the name, or the model cannot be opened.
        """
        name = next(iter(self._sources)) if name is None else name
        if name not in self._sources:
            raise GlamaError(f"no `model` is called {_show(name)}; list_models shows the names")
        with self._lock:
            if self._opened is None or self._opened[0] != name:
                if self._opened is not None:
                    self._opened[1].close()
                    self._opened = None
                self._opened = name, self._open_model(self._sources[name])
            yield self._opened[1]

    def list(self) -> list[OfferedModel]:
        """List the models.

        Returns:
            The models, the default first.
        """
        opened = self._opened  # a call that is under way is not waited for
        return [
            OfferedModel(
                name=name,
                is_default=number == 0,
                engine=opened[1].description if opened is not None and opened[0] == name else None,
            )
            for number, name in enumerate(self._sources)
        ]


@dataclass(frozen=True)
class Places:
    """The folders that a server may use.

    Attributes:
        roots: folders, without links; empty if every folder may be used.
    """

    roots: Sequence[Path] = ()

    def find_input(self, text: str, name: str) -> Source:
        """Find a picture that a client names or sends.

        Args:
            text: an absolute path, or a data URL.
            name: the field, for messages.

        Returns:
            The path without links, or the file in memory.

        Raises:
            GlamaError: the text is neither, or names a file that the server may not read.
        """
        if is_data_url(text):
            return PipedFile(f"`{name}`", decode_base64(text, name))
        path = self._find(text, name)
        if not path.is_file():
            raise ImageError(f"`{name}` {_show(text)} is not a file; give the path of a picture, or a data URL")
        return path

    def find_output(self, text: str, *, overwrite: bool) -> Path:
        """Find the file that a client wants to be written.

        Args:
            text: an absolute path.
            overwrite: whether a file may be replaced.

        Returns:
            The path without links.

        Raises:
            GlamaError: the file exists, or may not or cannot be written.
        """
        path = self._find(text, "output")
        if path.exists() and not path.is_file():
            raise GlamaError(f"`output` {_show(text)} is not a file; give the path of a picture")
        if not path.parent.is_dir():
            raise GlamaError(f"`output` {_show(text)} lies in a folder that does not exist; make the folder first")
        check_overwrite(path, is_there=path.exists(), overwrite=overwrite, place="output")
        check_writable(path)
        return path

    def _find(self, text: str, name: str) -> Path:
        if len(text) > _MAX_PATH_CHARACTERS or "\0" in text:
            raise GlamaError(
                f"`{name}` has {len(text)} characters and is not a path; send a file as a data URL, "
                "data:image/png;base64,…"
            )
        path = Path(text)
        check_no_address(path, name)
        if not path.is_absolute():
            raise GlamaError(
                f"`{name}` {_show(text)} is not an absolute path; give the whole path, from the root folder on"
            )
        try:
            resolved = path.resolve()
        except (OSError, RuntimeError) as error:  # RuntimeError: of a circle of links, before Python 3.13
            raise GlamaError(f"`{name}` {_show(text)} cannot be followed; check the links of the path") from error
        if self.roots and not any(resolved.is_relative_to(root) for root in self.roots):
            raise GlamaError(
                f"`{name}` {_show(text)} lies outside of {', '.join(map(str, self.roots))}; this server uses no other "
                "folder"
            )
        check_path(resolved)
        return resolved


class Tools:
    """The tools of the server.

    Args:
        models: the models that clients may name.
        places: the folders that clients may name.
    """

    def __init__(self, models: Models, places: Places) -> None:
        self._models, self._places = models, places
        self._writing = threading.Lock()

    def inpaint(
        self,
        image: ImageField,
        mask: MaskField = None,
        boxes: BoxesField = None,
        grow: GrowField = 0,
        model: ModelField = None,
        output: OutputField = None,
        overwrite: OverwriteField = False,
    ) -> CallToolResult:
        """Fill a part of a picture from its surroundings, for example to remove an object.

        Args:
            image: the picture, as a path or a data URL.
            mask: the mask, as a path or a data URL; None if boxes alone say what is missing.
            boxes: rectangles that are missing: left, top, width and height in pixels.
            grow: pixels by which the missing area grows.
            model: the name of a model; None: the default.
            output: the path of the filled picture; None: the picture is in the result.
            overwrite: whether a file at the output's path is replaced.

        Returns:
            The path of the output or the picture, and what was done, as text and as an object.

        Raises:
            ToolError: the input is wrong, or the picture cannot be filled. The text is one line.
        """
        with _as_tool_errors():
            if mask is None and not boxes:
                raise GlamaError("neither `mask` nor boxes are given; say which pixels are missing")
            if overwrite and output is None:
                raise GlamaError("`overwrite` is set without `output`; give the path of the output")
            source = self._places.find_input(image, "image")
            mask_source = None if mask is None else self._places.find_input(mask, "mask")
            out = _name_answer(source) if output is None else self._places.find_output(output, overwrite=overwrite)
            job = Job(source, mask_source, out)
            marks = Marks([Rectangle(*box) for box in boxes or ()])
            picture, missing = folder.read_job(job, folder.Masks(edits=MaskEdits(grow), marks=marks))
            with self._models.use(model) as inpainter:
                filled = folder.fill_inputs(inpainter, job, picture, missing)
                engine = inpainter.description
            done: dict[str, Any] = {
                "height": missing.shape[0],
                "width": missing.shape[1],
                "filled_pixels": int(missing.sum()),
                "engine": engine,
            }
            said = f"{done['filled_pixels']} of {missing.size} pixels filled with {engine}"
            if output is not None:
                with self._writing:  # another call may have written the file meanwhile
                    check_overwrite(out, is_there=out.exists(), overwrite=overwrite, place="output")
                    folder.write_job(job, filled)
                text = TextContent(type="text", text=f"{out}: {said}")
                return CallToolResult(content=[text], structured_content={"path": str(out), **done})
            encoder = ENCODERS[out.suffix]
            data = base64.b64encode(encode_image(filled, encoder, "image")).decode("ascii")
            picture_content = ImageContent(type="image", data=data, mime_type=f"image/{encoder.lower()}")
            return CallToolResult(
                content=[picture_content, TextContent(type="text", text=said)], structured_content=done
            )

    def list_models(self) -> list[OfferedModel]:
        """List the models that the tool inpaint can use.

        Returns:
            The models, the default first.
        """
        return self._models.list()


def _name_answer(source: Source) -> Path:
    """Return a name with the suffix of the format in which a picture is sent back."""
    suffix = find_suffix(source)
    return Path(f"image{suffix if ENCODERS[suffix] in _SHOWN_FORMATS else '.png'}")


@contextmanager
def _as_tool_errors() -> Iterator[None]:
    """Turn errors that the client can mend into errors of the tool. A bug stays as it is: the server logs it."""
    try:
        yield
    except folder.FAILURES as error:
        raise ToolError(str(error) or "not enough memory is free; scale or crop the picture") from error


class _OneLineServer(MCPServer):
    """A server whose errors about arguments are one line, as those of its tools are."""

    async def call_tool(
        self, name: str, arguments: dict[str, Any], context: Context[Any, Any] | None = None
    ) -> CallToolResult | InputRequiredResult:
        """Call a tool.

        Args:
            name: the name of the tool.
            arguments: the arguments as JSON has them.
            context: the request.

        Returns:
            The result of the tool.

        Raises:
            ToolError: the tool is unknown, an argument is wrong, or the tool failed.
        """
        await self._check_names(name, arguments)
        try:
            return await super().call_tool(name, arguments, context)
        except ToolError as error:
            if not isinstance(error.__cause__, ValidationError):
                raise
            first = error.__cause__.errors()[0]
            field = ".".join(map(str, first["loc"]))
            raise ToolError(f"the argument `{field}` of {name}: {first['msg'].lower()}") from None

    async def _check_names(self, name: str, arguments: Mapping[str, Any]) -> None:
        """Refuse arguments that the tool does not have. The SDK would pass over them.

        Raises:
            ToolError: an argument is unknown.
        """
        for tool in await self.list_tools():
            known = tool.input_schema.get("properties", {})
            unknown = [argument for argument in arguments if argument not in known]
            if tool.name == name and unknown:
                taken = f"it takes {', '.join(known)}" if known else "it takes none"
                raise ToolError(f"{name} has no argument `{_show(unknown[0])}`; {taken}")


def make_server(
    models: Mapping[str, str], open_model: Callable[[str], Inpainter], roots: Sequence[Path] = ()
) -> MCPServer:
    """Make the server.

    Args:
        models: what `open_model` takes, by the names that clients use. The first is the default.
        open_model: opens a model, such as :func:`glama_deploy.load`.
        roots: folders in which files may be read and written; empty for every folder.

    Returns:
        The server, for :func:`serve`.
    """
    tools = Tools(Models(models, open_model), Places([root.resolve() for root in roots]))
    server = _OneLineServer(
        "glama-deploy", version=__version__, instructions=_INSTRUCTIONS, log_level="WARNING", subscriptions=False
    )
    server.add_tool(
        tools.inpaint,
        description=_PURPOSE,
        annotations=ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False),
    )
    server.add_tool(
        tools.list_models,
        description="List the models that the tool inpaint can use.",
        annotations=ToolAnnotations(read_only_hint=True, open_world_hint=False),
    )
    return server


def serve(server: MCPServer) -> None:
    """Serve one client over standard input and output until the client closes the connection.

    The server runs in a thread of its own. The handler of a signal raises its error in the main thread, where the error
    would cut off a step of the event loop.

    Args:
        server: the server.
    """
    ended: Future[None] = Future()

    def run() -> None:
        try:
            server.run("stdio")
        except BaseException as error:  # noqa: BLE001 - raised again below
            ended.set_exception(error)
        else:
            ended.set_result(None)

    threading.Thread(target=run, name="glama-mcp", daemon=True).start()
    while not wait([ended], timeout=_WAIT_SECONDS).done:
        pass  # Python does not see a signal that comes just before a wait begins
    ended.result()
