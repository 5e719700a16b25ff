ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE} AS runtime
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates default-jre-headless \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
WORKDIR /app
COPY .quarry/ca.crt /usr/local/share/ca-certificates/quarry.crt
RUN csplit -s -z -b '%03d.crt' -f /usr/local/share/ca-certificates/quarry- /usr/local/share/ca-certificates/quarry.crt '/-----BEGIN CERTIFICATE-----/' '{*}' \
 && rm /usr/local/share/ca-certificates/quarry.crt \
 && update-ca-certificates > /dev/null 2>&1
FROM runtime AS build
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends default-jdk-headless  \
 && rm -rf /var/lib/apt/lists/*
ARG SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ARG PIP_INDEX_URL
RUN ["/bin/sh","-ec","for command; do echo \"+ $command\"; /bin/sh -c \"$command\"; done; chown -R app:app /app","install","make tools","pip install \"x\"\n"]
COPY --chown=app:app . /app/
RUN jar=$(find build/libs -maxdepth 1 -name '*.jar' ! -name 'original-*' ! -name '*-sources.jar' ! -name '*-javadoc.jar' ! -name '*-tests.jar' ! -name '*-plain.jar' | sort | head -n 1) \
 && if [ -n "$jar" ]; then ln -sf "$jar" app.jar; fi
FROM runtime
COPY --from=build --chown=app:app /app /app
USER app
CMD ["/bin/sh","-c","exec java $JAVA_OPTS -Dserver.port=$PORT -jar app.jar"]
