"""Write `build.sh`, which builds a bundle's TensorRT engine with trtexec alone. A Jetson brings trtexec along."""

from __future__ import annotations

import shlex

from glama_deploy import bundle_folder
from glama_deploy.bundle import DEFAULT_PROFILE, BuildSettings, Manifest, Size, SizeRange
from glama_deploy.catalogue import TENSORRT
from glama_deploy.engines.build import find_exported_precision
from glama_deploy.engines.tensorrt.engine import choose_profiles
from glama_deploy.engines.tensorrt.options import Options
from glama_deploy.errors import EngineError

#: The script's name in the bundle.
SCRIPT = bundle_folder.SCRIPT

_HEAD = """\
#!/bin/sh
# Builds this bundle's TensorRT engine with trtexec, for the GPU that it runs on: a Jetson with JetPack 6.1 or
# newer, or any other machine with TensorRT 10.3 or newer. TRTEXEC=/path/to/trtexec chooses another trtexec;
# arguments are passed on to it. The engine counts once it stands in manifest.json, which glama-build does at the end.
set -eu
trtexec=${TRTEXEC:-}
case $trtexec in
    "" | /*) ;;
    */*) trtexec=$PWD/$trtexec ;;
esac
if [ -n "$trtexec" ] && ! command -v "$trtexec" >/dev/null 2>&1; then
    echo "build.sh: TRTEXEC is $TRTEXEC, which is not a command; give the path of trtexec" >&2
    exit 2
fi
cd -- "$(dirname -- "$0")"

for place in trtexec /usr/src/tensorrt/bin/trtexec; do
    if [ -z "$trtexec" ] && command -v "$place" >/dev/null 2>&1; then
        trtexec=$place
    fi
done
if [ -z "$trtexec" ]; then
    echo "build.sh: no trtexec on PATH or in /usr/src/tensorrt/bin; on a Jetson: sudo apt install libnvinfer-bin" >&2
    exit 2
fi

engine=trtexec.engine
rm -f "$engine"
# From TensorRT 10.10 on a context takes scratch memory for its own size, and not for the largest.
preview=
case $("$trtexec" --help 2>&1 || :) in
    *runtimeActivationResize*) preview=--preview=+runtimeActivationResize ;;
esac
"""

#: The check of a script that builds a hardware-compatible engine. Jetsons have the file.
_REFUSE_JETSON = """\
if [ -e /etc/nv_tegra_release ]; then
    echo "build.sh: JetPack's TensorRT does not support --hardware-compatible; export again without the option" >&2
    exit 2
fi
"""

_BEFORE_BUILD = """\

echo "build.sh: trtexec times the kernels of every layer on this GPU, for each profile; this takes a while"
"""

#: What follows on trtexec's options. Its code is 137 where the system killed it.
_AFTER_BUILD = """\
    "$@" || {
    code=$?
    if [ "$code" -eq 137 ]; then
        echo "build.sh: the system killed trtexec, as Linux does where memory is short; free memory, or export" >&2
        echo "  again with a smaller --max-size, --profiles one, --workspace, or --precision fp16" >&2
    fi
    exit "$code"
}
"""

_TAIL = """\

if [ ! -s "$engine" ]; then
    echo "build.sh: trtexec wrote no engine; what it printed above says why" >&2
    exit 1
fi
if command -v glama-build >/dev/null 2>&1; then
    glama-build . {arguments} --engine "$engine" || {{
        code=$?
        echo "build.sh: the engine is built but not registered; when what glama-build said is mended, run:" >&2
        echo "  cd '$PWD' && glama-build . {arguments} --engine $engine" >&2
        exit $code
    }}
    rm -f "$engine"
    engine={engine}
else
    echo "build.sh: the engine is built but not registered, for glama-build is not installed here; install it and run:"
    echo "  pip install polygraphy cuda-python (JetPack 6: 'cuda-python==12.6.*'), and glama-deploy from its checkout"
    echo "  cd '$PWD' && glama-build . {arguments} --engine $engine"
fi
echo "build.sh: to measure the engine:"
echo "  cd '$PWD' && $trtexec --loadEngine=$engine{shapes} --useCudaGraph --allocationStrategy=runtime --useSpinWait"
"""


def format_script(manifest: Manifest, sizes: SizeRange = DEFAULT_PROFILE, options: Options | None = None) -> str:
    """Format `build.sh`, a POSIX shell script that builds the same TensorRT engine as this package.

    Args:
        manifest: The manifest of the bundle.
        sizes: The sizes (height, width) that the engine is built for, if the graph takes any size.
        options: The builder's options; None: the defaults.

    Returns:
        The text of the script.

    Raises:
        EngineError: The bundle's graph needs a Python plugin, which trtexec cannot load.
    """
    if manifest.fft == "plugin":
        raise EngineError("trtexec cannot load this bundle's plugin; build with `build(BUNDLE, target=trt)`")
    options = options or Options()
    precision = find_exported_precision(manifest, TENSORRT)
    lines = [
        f"--onnx={shlex.quote(manifest.graphs[precision].file.path)}",
        '--saveEngine="$engine"',
        "--stronglyTyped --noTF32 --skipInference --profilingVerbosity=detailed",
        *_list_shapes(manifest, sizes, options),
        *(trtexec for trtexec, _ in _list_settings(options.settings)),
        *([f"--timingCacheFile={shlex.quote(str(options.timing_cache))}"] if options.timing_cache else []),
        "$preview",
    ]
    arguments = " ".join(
        ["--target trt", f"--precision {precision}", *(build for _, build in _list_settings(options.settings))]
    )
    head = _HEAD + (_REFUSE_JETSON if options.settings.hardware_compatible else "")
    command = _BEFORE_BUILD + '"$trtexec" \\\n    ' + " \\\n    ".join(lines) + " \\\n" + _AFTER_BUILD
    tuned = manifest.sizes.opt if manifest.sizes.static else sizes.opt
    shapes = "".join(f" {option}" for option in _format_shapes(manifest, "shapes", 1, tuned))
    (name,) = TENSORRT.files
    return head + command + _TAIL.format(arguments=arguments, shapes=shapes, engine=f"{TENSORRT.name}/{name}")


def _list_shapes(manifest: Manifest, sizes: SizeRange, options: Options) -> list[str]:
    """List trtexec's options for the inputs' shapes, a line for each optimization profile; none for fixed shapes."""
    lines = []
    for index, profile in enumerate(choose_profiles(TENSORRT, manifest.sizes, sizes, options)):
        corners = (("min", 1, profile.min), ("opt", 1, profile.opt), ("max", profile.max_batch or 1, profile.max))
        shapes = [
            option for name, batch, size in corners for option in _format_shapes(manifest, f"{name}Shapes", batch, size)
        ]
        if shapes:
            lines.append(" ".join([f"--profile={index}", *shapes]))
    return lines


def _format_shapes(manifest: Manifest, option: str, batch: int, size: Size) -> list[str]:
    """Format one of trtexec's options for the inputs' shapes, as a list of one; of none for fixed shapes."""
    inputs = [tensor for tensor in manifest.inputs if any(isinstance(side, str) for side in tensor.shape)]
    shapes = [f"{shlex.quote(each.name)}:{'x'.join(map(str, each.shape_for(batch, *size)))}" for each in inputs]
    return [f"--{option}={','.join(shapes)}"] if shapes else []


def _list_settings(settings: BuildSettings) -> list[tuple[str, str]]:
    """List the given settings as options of trtexec and of glama-build, which writes them into the manifest."""
    table = (
        (
            settings.optimization_level is not None,
            f"--builderOptimizationLevel={settings.optimization_level}",
            f"--opt-level {settings.optimization_level}",
        ),
        (
            settings.workspace_mib is not None,
            f"--memPoolSize=workspace:{settings.workspace_mib}",
            f"--workspace {settings.workspace_mib}",
        ),
        (settings.version_compatible, "--versionCompatible", "--version-compatible"),
        (settings.hardware_compatible, "--hardwareCompatibilityLevel=ampere+", "--hardware-compatible"),
        (settings.refittable, "--refit", "--refittable"),
        (settings.stripped, "--stripWeights", "--strip-weights"),
    )
    return [(trtexec, build) for given, trtexec, build in table if given]
