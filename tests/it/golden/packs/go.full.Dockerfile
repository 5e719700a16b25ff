ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE} AS runtime
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates \
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
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends golang-go gcc libc6-dev git \
 && rm -rf /var/lib/apt/lists/*
ARG SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ARG PIP_INDEX_URL
ENV GOFLAGS=-buildvcs=false GOCACHE=/tmp/go-cache GOPATH=/tmp/go
COPY --chown=app:app ["go.mod","go.sum","./"]
RUN ["/bin/sh","-ec","for command; do echo \"+ $command\"; /bin/sh -c \"$command\"; done; chown -R app:app /app","install","make tools","pip install \"x\"\n"]
COPY --chown=app:app . /app/
RUN mkdir -p /app/bin && go build -v -o /app/bin/ . ./cmd/... && chown -R app:app /app/bin
FROM runtime
COPY --from=build --chown=app:app /app /app
USER app
CMD ["/bin/sh","-c","exec bin/shop"]
