# The shop of examples/ecommerce: `docker compose up --build`.

FROM rust:1.95-slim-trixie AS builder
WORKDIR /src
COPY . .
# The toolchain is that of the image, whatever rust-toolchain.toml would fetch.
ENV RUSTUP_TOOLCHAIN=1.95
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --example ecommerce \
    && cp target/release/examples/ecommerce /usr/local/bin/ecommerce

FROM debian:trixie-slim
# Certificates for a mail server, curl for the health check. Unpinned, so that a rebuild brings
# their security fixes.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates curl \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --no-create-home shop \
    && install --directory --owner=shop --group=shop /data
COPY --from=builder /usr/local/bin/ecommerce /usr/local/bin/ecommerce
COPY examples/ecommerce/config/order_processing.yaml /etc/shop/order_processing.yaml
USER 10001
VOLUME /data
EXPOSE 3000
HEALTHCHECK --interval=5s --timeout=6s --start-period=30s --retries=3 \
    CMD ["curl", "--fail", "--silent", "--output", "/dev/null", "http://127.0.0.1:3000/health/ready"]
# It starts no other process and minds SIGTERM itself, so that it needs no init.
ENTRYPOINT ["ecommerce", "--host", "0.0.0.0", "--data-dir", "/data", "--workflow", "/etc/shop/order_processing.yaml"]
