# syntax=docker/dockerfile:1.17
# Causeway's images. `docker build .` makes the servers' image: one binary on a slim Debian, for a user with a number.
# `docker build --target tools .` makes one with causewayctl, the stand-in provider and the demo, for docker-compose.yml.
# `--build-arg CAUSEWAY_BUILD=$(git rev-parse --short=12 HEAD)` has /health and `causewayctl status` name the commit.
# For the same bytes from the same commit, base images and Debian packages of the build: --build-arg SOURCE_DATE_EPOCH=$(git log -1
# --format=%ct), BuildKit 0.13 or newer, and --output type=image,rewrite-timestamp=true; the release workflow does so.

FROM rust:1.95.0-slim-bookworm AS build
# protoc is run by libsignal's build script, a C and C++ compiler by aws-lc's and SQLite's; Python makes the bill of materials.
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates g++ make protobuf-compiler python3 \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
# No path of this machine in the binaries, and nothing that differs from build to build.
ARG SOURCE_DATE_EPOCH=0
ENV RUSTFLAGS="--remap-path-prefix=/src=. --remap-path-prefix=/usr/local/cargo=cargo -C strip=debuginfo" \
    CFLAGS="-ffile-prefix-map=/src=. -ffile-prefix-map=/usr/local/cargo=cargo" \
    CXXFLAGS="-ffile-prefix-map=/src=. -ffile-prefix-map=/usr/local/cargo=cargo" \
    CARGO_INCREMENTAL=0
# The commit, which is not in the context; empty: nothing is told.
ARG CAUSEWAY_BUILD=
ENV CAUSEWAY_BUILD=$CAUSEWAY_BUILD
# The caches survive a change of the sources; --locked keeps to Cargo.lock.
RUN --mount=type=cache,target=/usr/local/cargo/registry,sharing=locked \
    --mount=type=cache,target=/src/target,sharing=locked \
    cargo build --release --locked -p causeway -p causewayctl -p causeway-sandbox -p causeway-demo \
    && install -D -t /out target/release/causeway target/release/causewayctl target/release/sandbox target/release/causeway-demo \
    && python3 tools/sbom.py >/out/causeway.cdx.json

# For trials on one machine: never in production. A shell and openssl are there for deploy/compose/prepare.sh.
FROM debian:bookworm-20250520-slim AS tools
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates openssl \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /out/causewayctl /out/sandbox /out/causeway-demo /usr/local/bin/
USER 65532:65532
CMD ["causewayctl", "--help"]

# Nothing is installed and nothing runs but the binary; probes ask over HTTP, so there is no HEALTHCHECK.
FROM debian:bookworm-20250520-slim AS causeway
ARG CAUSEWAY_BUILD=
LABEL org.opencontainers.image.title="Causeway" \
      org.opencontainers.image.description="Messaging interoperability under the Digital Markets Act: the operator's side" \
      org.opencontainers.image.licenses="AGPL-3.0-only" \
      org.opencontainers.image.revision="$CAUSEWAY_BUILD"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/causeway /out/causewayctl /usr/local/bin/
# A scanner sees no crates in a binary; here it finds them, so that they are in the image's own bill of materials, too.
COPY --from=build /out/causeway.cdx.json /usr/share/doc/causeway/causeway.cdx.json
COPY LICENSE /usr/share/doc/causeway/LICENSE
USER 65532:65532
# The root file system may be read-only: everything is written below the data folder, if at all.
ENV CAUSEWAY_DATA=/var/lib/causeway
ENTRYPOINT ["/usr/local/bin/causeway"]
CMD ["--help"]
