#!/bin/bash
# quarry-compile FOLDER...: buildpacks of Heroku's API over /tmp/build, in order; what comes out is /app.
set -e
build=/tmp/build cache=/tmp/cache env=/tmp/env
mkdir -p "$cache" "$env" /quarry/process
rm -rf "$build/.quarry"
for name in $QUARRY_BUILD_ENV; do
  [ -z "${!name+set}" ] || printf '%s' "${!name}" > "$env/$name"
done
# The YAML of bin/release: names and commands below default_process_types, names and values below config_vars.
take() {
  local section= line name value
  rm -rf /quarry/process/*
  while IFS= read -r line; do
    case $line in
      [a-z]*:*) section=${line%%:*} ;;
      [[:blank:]]*:*)
        name=${line%%:*} value=${line#*:}
        name=${name//[[:blank:]\"\']/}
        value=${value#"${value%%[![:blank:]]*}"}
        case $value in \"*\" | \'*\') value=${value:1:${#value}-2} ;; esac
        case $section in
          default_process_types) case $name in */*) ;; *) printf '%s\n' "$value" > "/quarry/process/$name" ;; esac ;;
          config_vars) case $name in *[!A-Za-z0-9_]*) ;; *) printf '%s\n' "[ -n \"\${$name+set}\" ] || export $name=$(printf %q "$value")" >> /quarry/config.sh ;; esac ;;
        esac ;;
    esac
  done
}
for pack; do
  name=${pack##*/} name=${name#*-}
  if ! found=$("$pack/bin/detect" "$build"); then
    echo "the buildpack $name does not recognise the repository" >&2
    exit 1
  fi
  echo "$found (buildpack $name)"
  "$pack/bin/compile" "$build" "$cache" "$env"
  if [ -f "$pack/export" ]; then . "$pack/export"; fi
  if [ -f "$pack/bin/release" ]; then "$pack/bin/release" "$build" > /tmp/release; take < /tmp/release; fi
done
shopt -s dotglob nullglob
mv "$build"/* /app/
rm -rf "$cache" "$env" /tmp/release
