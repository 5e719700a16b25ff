ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE} AS runtime
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates default-jre-headless \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
WORKDIR /app
FROM runtime AS build
USER root
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends default-jdk-headless  \
 && rm -rf /var/lib/apt/lists/*
COPY --chown=app:app . /app/
RUN mkdir -p classes && find . -name '*.java' -not -path '*/test/*' > /tmp/sources && javac -encoding UTF-8 -cp 'lib/*' -d classes @/tmp/sources
FROM runtime
COPY --from=build --chown=app:app /app /app
USER app
CMD ["/bin/sh","-c","exec java $JAVA_OPTS -cp 'classes:lib/*' Main"]
