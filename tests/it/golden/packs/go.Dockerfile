ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE} AS runtime
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
ENV PATH=/app/bin:$PATH
WORKDIR /app
FROM runtime AS build
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends golang-go gcc libc6-dev git \
 && rm -rf /var/lib/apt/lists/*
ENV GOFLAGS=-buildvcs=false GOCACHE=/tmp/go-cache GOPATH=/tmp/go
COPY --chown=app:app ["go.mod","go.sum","./"]
RUN go mod download
COPY --chown=app:app . /app/
RUN mkdir -p /app/bin && go build -v -o /app/bin/ . ./cmd/... && chown -R app:app /app/bin
FROM runtime
COPY --from=build --chown=app:app /app /app
USER app
CMD ["/bin/sh","-c","exec bin/shop"]
