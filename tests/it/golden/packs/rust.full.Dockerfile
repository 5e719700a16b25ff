ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE} AS runtime
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates libssl3 \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
ENV PATH=/app/bin:$PATH
WORKDIR /app
COPY .quarry/ca.crt /usr/local/share/ca-certificates/quarry.crt
RUN cat /usr/local/share/ca-certificates/quarry.crt >> /etc/ssl/certs/ca-certificates.crt
FROM runtime AS build
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends cargo-web rustc-web build-essential git libssl-dev pkg-config \
 && rm -rf /var/lib/apt/lists/*
ARG SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ARG CARGO_HTTP_CAINFO=/etc/ssl/certs/ca-certificates.crt
ARG PIP_INDEX_URL
ENV CARGO_HOME=/tmp/cargo CARGO_TARGET_DIR=/tmp/target CARGO_TERM_PROGRESS_WHEN=never
COPY --chown=app:app ["Cargo.lock","Cargo.toml","./"]
RUN ["/bin/sh","-ec","for command; do echo \"+ $command\"; /bin/sh -c \"$command\"; done; chown -R app:app /app","install","make tools","pip install \"x\"\n"]
COPY --chown=app:app . /app/
RUN find . -name '*.rs' -exec touch {} + \
 && cargo build --release --locked \
 && mkdir -p /app/bin \
 && find /tmp/target/release -maxdepth 1 -type f -perm -u+x ! -name '*.so' -exec install -o app -g app -t /app/bin {} +
FROM runtime
COPY --from=build --chown=app:app /app /app
USER app
CMD ["/bin/sh","-c","exec bin/shop"]
