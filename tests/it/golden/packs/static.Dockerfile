ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends ca-certificates nginx-light \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
RUN printf '%s\n' '# Filled when a container starts: @ROOT@ is the site, @PORT@ comes from $PORT, @ERROR_PAGE@ names its own 404 page.' \
    'worker_processes 1;' \
    'pid /tmp/nginx.pid;' \
    'error_log stderr warn;' \
    'events { worker_connections 1024; }' \
    'http {' \
    '  include /etc/nginx/mime.types;' \
    '  types { text/javascript mjs; application/manifest+json webmanifest; text/markdown md; }' \
    '  default_type application/octet-stream;' \
    '  charset utf-8;' \
    '  access_log off;' \
    '  server_tokens off;' \
    '  sendfile on;' \
    '  tcp_nopush on;' \
    '  absolute_redirect off;' \
    '  gzip on;' \
    '  gzip_vary on;' \
    '  gzip_proxied any;' \
    '  gzip_min_length 512;' \
    '  gzip_types text/plain text/css text/xml text/javascript application/javascript application/json' \
    '             application/xml application/rss+xml application/manifest+json application/wasm image/svg+xml;' \
    '  client_body_temp_path /tmp/nginx-body;' \
    '  proxy_temp_path /tmp/nginx-proxy;' \
    '  fastcgi_temp_path /tmp/nginx-fastcgi;' \
    '  uwsgi_temp_path /tmp/nginx-uwsgi;' \
    '  scgi_temp_path /tmp/nginx-scgi;' \
    '  server {' \
    '    listen @PORT@;' \
    '    root @ROOT@;' \
    '    index index.html index.htm;' \
    '    @ERROR_PAGE@' \
    '    location / { try_files $uri $uri/ $uri.html =404; }' \
    '    location ~ /\.(?!well-known/) { return 404; }' \
    '    location ~ ^/(quarry\.ya?ml|Procfile|Dockerfile|app\.json)$ { return 404; }' \
    '  }' \
    '}' \
    > /etc/nginx/site.conf \
 && printf '%s\n' '#!/bin/sh' \
    'set -e' \
    'page=' \
    'if [ -f "$1/404.html" ]; then page='\''error_page 404 /404.html;'\''; fi' \
    'sed "s|@PORT@|${PORT:-5000}|; s|@ROOT@|$1|; s|@ERROR_PAGE@|$page|" /etc/nginx/site.conf > /tmp/nginx.conf' \
    'exec nginx -e stderr -c /tmp/nginx.conf -g '\''daemon off;'\''' \
    > /usr/local/bin/static-site \
 && chmod 755 /usr/local/bin/static-site
WORKDIR /app
STOPSIGNAL SIGQUIT
CMD ["/bin/sh","-c","exec static-site /app"]
USER app
COPY --chown=app:app . /app/
