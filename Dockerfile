# An image for CPU, TPU or CUDA: docker build --build-arg=ACCELERATOR=tpu --tag=rlvr_jax .
FROM python:3.11-slim
# "cpu", "tpu" or "cuda", whose driver is the host's
ARG ACCELERATOR=cpu
WORKDIR /rlvr_jax
COPY . .
RUN case $ACCELERATOR in cpu) extra= ;; tpu | cuda) extra="[$ACCELERATOR]" ;; *) exit 2 ;; esac \
    && pip install --no-cache-dir --constraint=constraints.txt --editable=".$extra"
CMD ["rlvr", "--help"]
