# The one binary in a small image, run by a user that is not root.
FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --profile dist -p server && mkdir /data /log /photos

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
