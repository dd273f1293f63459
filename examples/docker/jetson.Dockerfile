# glama on a Jetson Orin with JetPack 6.1 or 6.2: TensorRT 10.3, ONNX Runtime (CPU) and the server, without PyTorch.
# On the Jetson, in the root of a checkout:
#     docker build -f examples/docker/jetson.Dockerfile -t glama:jetson .
#     docker run --runtime nvidia glama:jetson doctor
#     docker run --runtime nvidia -v ./big-lama:/big-lama glama:jetson build /big-lama --target trt
#     docker run --runtime nvidia -v ./big-lama:/big-lama -p 127.0.0.1:8080:8080 glama:jetson \
#         serve --host 0.0.0.0 --no-open --model /big-lama
FROM nvcr.io/nvidia/l4t-jetpack:r36.4.0

# The image of JetPack has TensorRT; these lines add what may be missing of its tools.
# hadolint ignore=DL3008 # NVIDIA's and Ubuntu's archives remove old versions, so a pinned version breaks the build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv python3-libnvinfer libnvinfer-bin \
    && rm -rf /var/lib/apt/lists/*

# The environment sees JetPack's Python package of TensorRT. Newer versions of cuda-python need a newer driver.
ENV PATH=/opt/glama/bin:$PATH
# hadolint ignore=DL3013 # any version of polygraphy from the extra tensorrt on builds with JetPack's TensorRT
RUN --mount=type=bind,target=/source,rw \
    python3 -m venv --system-site-packages /opt/glama \
    && pip install --no-cache-dir -c /source/constraints-python3.10.txt '/source[serve,onnxruntime]' \
    && pip install --no-cache-dir 'polygraphy>=0.49.18' 'cuda-python==12.6.*' \
    && useradd --create-home --uid 1000 --groups video glama

USER 1000
# Tries the engines. A build does not see the GPU, so the engines of the CPU run.
RUN glama doctor

EXPOSE 8080
HEALTHCHECK CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz')"]
ENTRYPOINT ["glama"]
CMD ["serve", "--host", "0.0.0.0", "--no-open"]
