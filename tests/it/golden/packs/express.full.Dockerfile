ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nodejs npm \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
ENV PATH=/app/node_modules/.bin:$PATH NODE_ENV=production
WORKDIR /app
COPY .quarry/ca.crt /usr/local/share/ca-certificates/quarry.crt
RUN cat /usr/local/share/ca-certificates/quarry.crt >> /etc/ssl/certs/ca-certificates.crt
ARG NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt
ARG SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ARG PIP_INDEX_URL
ARG NO_UPDATE_NOTIFIER=1
ARG HUSKY=0
ARG YARN_NODE_LINKER=node-modules
ARG YARN_ENABLE_TELEMETRY=0
COPY --chown=app:app ["package-lock.json","package.json","./"]
RUN ["/bin/sh","-ec","for command; do echo \"+ $command\"; /bin/sh -c \"$command\"; done; chown -R app:app /app","install","make tools","pip install \"x\"\n"]
USER app
CMD ["/bin/sh","-c","exec node server.js"]
COPY --chown=app:app . /app/
