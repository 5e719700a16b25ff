ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && python3 -m venv /opt/venv \
 && install -d -o app -g app /app \
 && chown -R app:app /opt/venv
ENV PATH=/opt/venv/bin:$PATH VIRTUAL_ENV=/opt/venv PYTHONUNBUFFERED=1
WORKDIR /app
COPY .quarry/ca.crt /usr/local/share/ca-certificates/quarry.crt
RUN cat /usr/local/share/ca-certificates/quarry.crt >> /etc/ssl/certs/ca-certificates.crt
ARG PIP_CERT=/etc/ssl/certs/ca-certificates.crt
ARG SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ARG REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt
ARG PIP_INDEX_URL
ARG PIP_NO_CACHE_DIR=1
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
RUN ["/bin/sh","-ec","for command; do echo \"+ $command\"; /bin/sh -c \"$command\"; done; chown -R app:app /app","install","make tools","pip install \"x\"\n"]
USER app
ENV PYTHONPATH=/app/src
CMD ["/bin/sh","-c","exec uvicorn main:app --host 0.0.0.0 --port $PORT"]
COPY --chown=app:app . /app/
