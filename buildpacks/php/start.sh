#!/bin/bash
# php-site [FOLDER]: PHP and nginx over a folder of /app; ends when either of them does.
while getopts C:F:i:l:c:t: option; do
  [ "$option" != C ] || echo "php-site: the nginx snippet $OPTARG is passed over" >&2
done
shift $((OPTIND - 1))
root=/app/${1:-}
export WEB_CONCURRENCY=${WEB_CONCURRENCY:-5}
sed "s|@PORT@|${PORT:-5000}|; s|@ROOT@|${root%/}|" /etc/nginx/site.conf > /tmp/nginx.conf
php-fpm -F -y /etc/php/site.conf & fpm=$!
nginx -e stderr -c /tmp/nginx.conf -g 'daemon off;' & nginx=$!
trap 'kill -QUIT $nginx; wait $nginx; kill -QUIT $fpm; wait $fpm; exit 0' TERM INT QUIT
wait -n
code=$?
kill $nginx $fpm 2> /dev/null
exit "$((code ? code : 1))"
