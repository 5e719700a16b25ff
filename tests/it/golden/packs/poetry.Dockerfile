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
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends libpq5 imagemagick \
 && rm -rf /var/lib/apt/lists/*
ARG PIP_NO_CACHE_DIR=1
ARG PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/poetry && /opt/poetry/bin/pip install poetry
USER app
COPY --chown=app:app ["poetry.lock","pyproject.toml","./"]
RUN /opt/poetry/bin/poetry install --only main --no-root --no-interaction --no-ansi
CMD ["/bin/sh","-c","exec gunicorn wsgi:application --bind 0.0.0.0:$PORT"]
COPY --chown=app:app . /app/
