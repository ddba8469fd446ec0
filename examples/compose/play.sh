#!/usr/bin/env bash
# play.sh HOST PORT FILE waits until walhook is ready at HOST:PORT, then runs FILE. The image has psql and bash, but no curl.
set -euo pipefail

ready() {
  exec 3<>"/dev/tcp/$1/$2" && printf 'GET /readyz HTTP/1.0\r\n\r\n' >&3 && head -n 1 <&3 | grep -q ' 200 '
}

for _ in {1..120}; do
  if (ready "$1" "$2") 2>/dev/null; then
    exec psql --no-psqlrc --set ON_ERROR_STOP=1 --file "$3"
  fi
  sleep 1
done
echo "walhook at $1:$2 is not ready after two minutes; see its log" >&2
exit 1
