ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates ruby ruby-bundler git \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app /opt/bundle
ENV PATH=/app/bin:/opt/bundle/bin:$PATH BUNDLE_PATH=/opt/bundle BUNDLE_BIN=/opt/bundle/bin BUNDLE_WITHOUT=development:test \
    LANG=C.UTF-8 RACK_ENV=production RAILS_ENV=production RAILS_LOG_TO_STDOUT=enabled RAILS_SERVE_STATIC_FILES=enabled
WORKDIR /app
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends build-essential ruby-dev libffi-dev libyaml-dev libpq-dev \
 && rm -rf /var/lib/apt/lists/*
ARG BUNDLE_DEPLOYMENT=1
ARG BUNDLE_JOBS=4
USER app
COPY --chown=app:app ["Gemfile","Gemfile.lock","./"]
RUN bundle install
CMD ["/bin/sh","-c","exec bin/rails server -b 0.0.0.0 -p $PORT -e $RAILS_ENV"]
COPY --chown=app:app . /app/
RUN SECRET_KEY_BASE_DUMMY=1 SECRET_KEY_BASE=assets bundle exec rake assets:precompile
