# The viewer, as an ordinary user:
#   docker build -t horinsight .
#   docker run --rm -p 8501:8501 --memory 4g --read-only --tmpfs /tmp horinsight --memory 3
# and with weights of one's own: ... -v "$PWD/weights:/weights:ro" horinsight --checkpoints /weights
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 \
    OMP_NUM_THREADS=1 MPLCONFIGDIR=/tmp/matplotlib

# PyTorch without CUDA, which the viewer does not use; then the package, from a copy that is not kept
RUN pip install --index-url https://download.pytorch.org/whl/cpu torch torchvision
COPY pyproject.toml README.md LICENSE /source/
COPY horinsight /source/horinsight
RUN pip install /source && rm -r /source

RUN useradd --uid 10001 --create-home viewer
USER 10001
WORKDIR /home/viewer

EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"]
ENTRYPOINT ["horinsight", "viewer", "--host", "0.0.0.0", "--port", "8501"]
