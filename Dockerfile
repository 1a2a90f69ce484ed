# The one binary in a small image, run by a user that is not root.
FROM rust:1.95.0-slim-bookworm AS rust
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src

# The workspace without its code: every manifest, the lock file, and an empty source file for each target of a crate.
# The stage runs whenever a source file changes, but its result stays the same, and so does the layer that copies it.
FROM rust AS manifests
COPY . .
RUN mkdir /manifests \
    && find . \( -name Cargo.toml -o -name Cargo.lock \) -exec cp --parents -t /manifests {} + \
    && find . -regex '.*/\(src/lib\|src/main\|src/bin/[^/]*\|benches/[^/]*\|tests/[^/]*\|tests/[^/]*/main\|build\)\.rs' \
        -not -path '*/src/*/*/*' \
    | while read -r source; do \
        mkdir -p "/manifests/$(dirname "$source")"; \
        case $source in \
        */src/lib.rs) : >"/manifests/$source" ;; \
        *) echo 'fn main() {}' >"/manifests/$source" ;; \
        esac; \
    done

FROM rust AS build
# This layer compiles the dependencies. It is built again when a manifest or the lock file changes.
COPY --from=manifests /manifests .
RUN cargo build --locked --profile dist -p server
# Cargo compares times: a source file must be younger than what was built from the empty one.
COPY . .
RUN find . -name '*.rs' -exec touch {} + \
    && cargo build --locked --profile dist -p server \
    && mkdir /data /log /photos

FROM debian:12.12-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /src/target/dist/profile-ledger /usr/local/bin/profile-ledger
# Volumes made here belong to the user of the image.
COPY --from=build --chown=65532:65532 /data /data
COPY --from=build --chown=65532:65532 /log /log
COPY --from=build --chown=65532:65532 /photos /photos
ENV DATA_DIR=/data LISTEN=0.0.0.0:8080
USER 65532:65532
EXPOSE 8080
VOLUME /data
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["profile-ledger", "ready"]
ENTRYPOINT ["profile-ledger"]
