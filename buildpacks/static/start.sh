#!/bin/sh
set -e
page=
if [ -f "$1/404.html" ]; then page='error_page 404 /404.html;'; fi
sed "s|@PORT@|${PORT:-5000}|; s|@ROOT@|$1|; s|@ERROR_PAGE@|$page|" /etc/nginx/site.conf > /tmp/nginx.conf
exec nginx -e stderr -c /tmp/nginx.conf -g 'daemon off;'
