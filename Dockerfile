# The commands of bert_jax, for CPUs, NVIDIA GPUs (cuda12, cuda13) or TPUs (tpu):
#
#   docker build --build-arg EXTRA=cuda13 --tag bert_jax .
#   docker run --gpus=all --volume /shared:/shared bert_jax bert_jax.pretrain --config=...
#
# EXTRA names extras of pyproject.toml, separated by commas; without it, CPUs. TensorFlow
# (data) doubles the size and is not needed with --config.data.loader=thread.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim
ARG EXTRA=
# tini hands signals on also while Python starts, which ignores them as process 1.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends tini \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 bert
WORKDIR /src
COPY pyproject.toml README.md LICENSE ./
COPY bert_jax bert_jax
COPY configs configs
# hadolint ignore=DL3013
RUN pip install --no-cache-dir ".${EXTRA:+[$EXTRA]}"
WORKDIR /home/bert
USER 1000:1000
ENV PYTHONUNBUFFERED=1
ENTRYPOINT ["tini", "--", "python", "-m"]
CMD ["bert_jax.pretrain", "--help"]
