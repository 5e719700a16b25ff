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
RUN npm install -g --no-audit --no-fund yarn@1
USER app
COPY --chown=app:app . /app/
RUN yarn install --frozen-lockfile --non-interactive --production=false
CMD ["/bin/sh","-c","exec node app.js"]
