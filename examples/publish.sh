#!/usr/bin/env bash
# Publishes each line of the standard input as one event, in order and each exactly once:
#
#   examples/publish.sh http://127.0.0.1:8080/channels/greetings
#
# curl repeats a publish after a fault of the connection and after the statuses 408, 429, 500, 502,
# 503 and 504. Each attempt has the same Idempotency-Key, so the origin stores the event once. The
# origin remembers a key for ten minutes (--idempotency-age); the script gives up before that.
set -euo pipefail

url=${1:?the first argument is the URL of a channel}
run=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
answer=$(mktemp)
trap 'rm -f "$answer"' EXIT

number=0
while IFS= read -r line || [ -n "$line" ]; do
  number=$((number + 1))
  # Without --fail, a refusal such as 422 is no error for curl, and is not repeated. --data-raw,
  # because --data takes a line that begins with @ as the name of a file.
  status=$(curl --silent --max-time 10 \
    --retry 1000 --retry-all-errors --retry-delay 1 --retry-max-time 540 \
    --header "Idempotency-Key: $run-$number" --header "Content-Type: text/plain" \
    --data-raw "$line" --output "$answer" --write-out '%{http_code}' "$url")
  cat "$answer"
  echo
  if [ "$status" != 200 ] && [ "$status" != 201 ]; then
    echo "line $number was refused with $status" >&2
    exit 1
  fi
done
