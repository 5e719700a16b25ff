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
ARG PIP_NO_CACHE_DIR=1
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
USER app
COPY --chown=app:app ["requirements.txt","./"]
RUN pip install -r requirements.txt
CMD ["/bin/sh","-c","exec gunicorn app:app --bind 0.0.0.0:$PORT"]
COPY --chown=app:app . /app/
