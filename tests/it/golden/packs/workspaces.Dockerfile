ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nodejs npm \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
ENV PATH=/app/node_modules/.bin:$PATH NODE_ENV=production
WORKDIR /app
ARG NO_UPDATE_NOTIFIER=1
ARG HUSKY=0
ARG YARN_NODE_LINKER=node-modules
ARG YARN_ENABLE_TELEMETRY=0
USER app
COPY --chown=app:app [".npmrc","package-lock.json","package.json","./"]
COPY --chown=app:app ["packages/a/package.json","./packages/a/"]
COPY --chown=app:app ["packages/b/package.json","./packages/b/"]
RUN npm ci --omit=dev --no-audit --no-fund
CMD ["/bin/sh","-c","exec npm start"]
COPY --chown=app:app . /app/
