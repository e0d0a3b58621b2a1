# Everything that a run of the workflow needs, on CPUs:
#   docker build -t cloudcover .
#   docker run --rm -v "$PWD/out:/project/reports" cloudcover
# For GPUs, build with an index of CUDA wheels: --build-arg TORCH_INDEX=https://pypi.org/simple
# For pods of Kubernetes: --build-arg EXTRAS=workflow,download,kubernetes
FROM python:3.11-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=workflow,review,download

# A compiler for torch.compile, git for DVC, expat for the wheels of rasterio, make for the targets.
RUN apt-get update \
    && apt-get install -y --no-install-recommends g++ git libexpat1 make \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /project
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY src src
# torch alone, because its index lacks the pinned versions of its dependencies; the second command installs these.
RUN pip install --no-cache-dir --no-deps torch==2.13.0 --index-url "$TORCH_INDEX" \
    && pip install --no-cache-dir --constraint constraints.txt --editable ".[$EXTRAS]"
COPY . .

# Snakemake and Matplotlib write below the home folder, so any user of the container must be able to.
ENV HOME=/project/work/home
RUN mkdir -p "$HOME" && chmod -R a+rwX /project

CMD ["sh", "-c", "snakemake --cores all --resources gpu=1 --quiet rules host && cloudcover summary"]
