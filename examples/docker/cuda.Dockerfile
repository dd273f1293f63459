# glama on a desktop or server GPU: TensorRT-RTX, ONNX Runtime (CPU) and the server, without PyTorch. The driver on the
# host is 580 or newer (CUDA 13), with the NVIDIA Container Toolkit. In the root of a checkout:
#     docker build -f examples/docker/cuda.Dockerfile -t glama:cuda .
#     docker run --gpus all glama:cuda doctor
#     docker run --gpus all -v ./big-lama:/big-lama glama:cuda build /big-lama --target trt-rtx
#     docker run --gpus all -v ./big-lama:/big-lama -p 127.0.0.1:8080:8080 glama:cuda \
#         serve --host 0.0.0.0 --no-open --model /big-lama
# --build-arg ENGINE=tensorrt installs TensorRT instead, for GPUs that are not RTX; the target is then trt.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

# hadolint ignore=DL3008 # Ubuntu removes old versions, so a pinned version breaks the build
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3-venv \
    && rm -rf /var/lib/apt/lists/*

ARG ENGINE=tensorrt-rtx
ENV PATH=/opt/glama/bin:$PATH
RUN --mount=type=bind,target=/source,rw \
    python3 -m venv /opt/glama \
    && pip install --no-cache-dir -c /source/constraints.txt "/source[serve,onnxruntime,${ENGINE}]"

# Ubuntu's image has a user of this number.
USER 1000
# Tries the engines. Without a GPU, as in a build, the engines of the CPU run.
RUN glama doctor

EXPOSE 8080
HEALTHCHECK CMD ["python3", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz')"]
ENTRYPOINT ["glama"]
CMD ["serve", "--host", "0.0.0.0", "--no-open"]
