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
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends default-jdk-headless maven \
 && rm -rf /var/lib/apt/lists/*
COPY --chown=app:app ["pom.xml","./"]
RUN mvn -B -q dependency:go-offline || true
COPY --chown=app:app . /app/
RUN mvn -B -DskipTests -DoutputFile=target/mvn-dependency-list.log package
RUN jar=$(find target -maxdepth 1 -name '*.jar' ! -name 'original-*' ! -name '*-sources.jar' ! -name '*-javadoc.jar' ! -name '*-tests.jar' ! -name '*-plain.jar' | sort | head -n 1) \
 && if [ -n "$jar" ]; then ln -sf "$jar" app.jar; fi
FROM runtime
COPY --from=build --chown=app:app /app /app
USER app
CMD ["/bin/sh","-c","exec java $JAVA_OPTS -Dserver.port=$PORT -jar app.jar"]
