# The one binary in a small image, run by a user that is not root.
FROM rust:1.95.0-slim-bookworm AS build
RUN apt-get update && apt-get install -y --no-install-recommends build-essential && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --locked --release -p server && mkdir /data /log /photos

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/profile-ledger /usr/local/bin/profile-ledger
# Volumes made here belong to the user of the image.
COPY --from=build --chown=nonroot:nonroot /data /data
COPY --from=build --chown=nonroot:nonroot /log /log
COPY --from=build --chown=nonroot:nonroot /photos /photos
ENV DATA_DIR=/data LISTEN=0.0.0.0:8080
USER nonroot
EXPOSE 8080
VOLUME /data
HEALTHCHECK --interval=5s --timeout=3s --start-period=10s CMD ["profile-ledger", "ready"]
ENTRYPOINT ["profile-ledger"]
