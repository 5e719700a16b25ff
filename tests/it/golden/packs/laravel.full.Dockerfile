ARG QUARRY_BASE=debian:bookworm-slim
FROM ${QUARRY_BASE}
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends bash ca-certificates composer git nginx-light php-cli php-curl php-fpm php-mbstring php-xml php-zip unzip \
 && rm -rf /var/lib/apt/lists/* /var/log/apt /var/log/dpkg.log \
 && useradd --uid 1000 --create-home --shell /bin/bash app \
 && install -d -o app -g app /app
RUN printf '%s\n' '# Filled when a container starts: @ROOT@ is the site, @PORT@ comes from $PORT.' \
    'worker_processes 1;' \
    'pid /tmp/nginx.pid;' \
    'error_log stderr warn;' \
    'events { worker_connections 1024; }' \
    'http {' \
    '  include /etc/nginx/mime.types;' \
    '  types { text/javascript mjs; }' \
    '  default_type application/octet-stream;' \
    '  access_log off;' \
    '  server_tokens off;' \
    '  sendfile on;' \
    '  absolute_redirect off;' \
    '  client_max_body_size 0;' \
    '  gzip on;' \
    '  gzip_proxied any;' \
    '  gzip_types text/plain text/css text/javascript application/javascript application/json image/svg+xml;' \
    '  client_body_temp_path /tmp/nginx-body;' \
    '  proxy_temp_path /tmp/nginx-proxy;' \
    '  fastcgi_temp_path /tmp/nginx-fastcgi;' \
    '  uwsgi_temp_path /tmp/nginx-uwsgi;' \
    '  scgi_temp_path /tmp/nginx-scgi;' \
    '  map $http_x_forwarded_proto $behind_https { default ""; https on; }' \
    '  server {' \
    '    listen @PORT@;' \
    '    root @ROOT@;' \
    '    index index.php index.html;' \
    '    location / { try_files $uri $uri/ /index.php$is_args$args; }' \
    '    location ~ /\.(?!well-known/) { return 404; }' \
    '    location ~ ^/(quarry\.ya?ml|Procfile|Dockerfile|app\.json|composer\.(json|lock)|vendor/.*)$ { return 404; }' \
    '    location ~ \.php(/|$) {' \
    '      fastcgi_split_path_info ^(.+?\.php)(/.*)$;' \
    '      try_files $fastcgi_script_name =404;' \
    '      include /etc/nginx/fastcgi_params;' \
    '      fastcgi_param SCRIPT_FILENAME $document_root$fastcgi_script_name;' \
    '      fastcgi_param PATH_INFO $fastcgi_path_info;' \
    '      fastcgi_param HTTPS $behind_https if_not_empty;' \
    '      fastcgi_read_timeout 300s;' \
    '      fastcgi_pass unix:/tmp/php-fpm.sock;' \
    '    }' \
    '  }' \
    '}' \
    > /etc/nginx/site.conf \
 && printf '%s\n' '[global]' \
    'error_log = /dev/stderr' \
    'daemonize = no' \
    '[site]' \
    'listen = /tmp/php-fpm.sock' \
    'pm = dynamic' \
    'pm.max_children = ${WEB_CONCURRENCY}' \
    'pm.start_servers = 1' \
    'pm.min_spare_servers = 1' \
    'pm.max_spare_servers = 2' \
    'clear_env = no' \
    'catch_workers_output = yes' \
    'decorate_workers_output = no' \
    > /etc/php/site.conf \
 && printf '%s\n' '#!/bin/bash' \
    '# php-site [FOLDER]: PHP and nginx over a folder of /app; ends when either of them does.' \
    'while getopts C:F:i:l:c:t: option; do' \
    '  [ "$option" != C ] || echo "php-site: the nginx snippet $OPTARG is passed over" >&2' \
    'done' \
    'shift $((OPTIND - 1))' \
    'root=/app/${1:-}' \
    'export WEB_CONCURRENCY=${WEB_CONCURRENCY:-5}' \
    'sed "s|@PORT@|${PORT:-5000}|; s|@ROOT@|${root%/}|" /etc/nginx/site.conf > /tmp/nginx.conf' \
    'php-fpm -F -y /etc/php/site.conf & fpm=$!' \
    'nginx -e stderr -c /tmp/nginx.conf -g '\''daemon off;'\'' & nginx=$!' \
    'trap '\''kill -QUIT $nginx; wait $nginx; kill -QUIT $fpm; wait $fpm; exit 0'\'' TERM INT QUIT' \
    'wait -n' \
    'code=$?' \
    'kill $nginx $fpm 2> /dev/null' \
    'exit "$((code ? code : 1))"' \
    > /usr/local/bin/php-site \
 && chmod 755 /usr/local/bin/php-site \
 && for name in heroku-php-nginx heroku-php-apache2; do ln -s php-site /usr/local/bin/$name; done \
 && ln -s "$(ls /usr/sbin/php-fpm* | head -n 1)" /usr/local/bin/php-fpm
ENV COMPOSER_HOME=/tmp/composer COMPOSER_NO_INTERACTION=1
WORKDIR /app
RUN apt-get update \
 && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends php-pgsql \
 && rm -rf /var/lib/apt/lists/*
COPY .quarry/ca.crt /usr/local/share/ca-certificates/quarry.crt
RUN cat /usr/local/share/ca-certificates/quarry.crt >> /etc/ssl/certs/ca-certificates.crt
ARG SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt
ARG COMPOSER_CAFILE=/etc/ssl/certs/ca-certificates.crt
ARG PIP_INDEX_URL
COPY --chown=app:app ["composer.json","composer.lock","./"]
RUN ["/bin/sh","-ec","for command; do echo \"+ $command\"; /bin/sh -c \"$command\"; done; chown -R app:app /app","install","make tools","pip install \"x\"\n"]
USER app
CMD ["/bin/sh","-c","exec php-site public"]
COPY --chown=app:app . /app/
RUN mkdir -p /app/vendor/bin && for name in heroku-php-nginx heroku-php-apache2; do test -e /app/vendor/bin/$name || ln -s /usr/local/bin/php-site /app/vendor/bin/$name; done
