#!/bin/bash
# quarry-launch TEXT: a command line with the environment that the buildpacks left; @NAME is a process they named.
cd /app
if [ -f /quarry/config.sh ]; then . /quarry/config.sh; fi
for file in /app/.profile.d/*.sh; do
  if [ -r "$file" ]; then . "$file"; fi
done
if [ -r /app/.profile ]; then . /app/.profile; fi
text=$1
case $text in
  @*)
    if [ ! -f "/quarry/process/${text#@}" ]; then
      echo "no buildpack says what to start for ${text#@}: add a Procfile with a line such as \`${text#@}: ./server\`" >&2
      exit 1
    fi
    text=$(cat "/quarry/process/${text#@}") ;;
esac
exec bash -c "$text"
