# glama on a CPU: OpenVINO and the server, without PyTorch. In the root of a checkout:
#     docker build -f examples/docker/cpu.Dockerfile -t glama:cpu .
#     docker run -p 127.0.0.1:8080:8080 glama:cpu
#     docker run -v ./pictures:/pictures glama:cpu inpaint /pictures/photo.jpg /pictures/mask.png /pictures/result.png
FROM python:3.12.11-slim-bookworm

RUN --mount=type=bind,target=/source,rw \
    pip install --no-cache-dir -c /source/constraints.txt '/source[serve]' \
    && useradd --create-home --uid 1000 glama

USER 1000
# Tries the engines, and ends the build where none runs. The export of the embedded network stays in the cache.
RUN glama doctor

EXPOSE 8080
HEALTHCHECK CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/readyz')"]
ENTRYPOINT ["glama"]
CMD ["serve", "--host", "0.0.0.0", "--no-open"]
