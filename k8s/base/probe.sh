#!/bin/bash
# Ready means: this model version answers a prediction. Sends the rendered HTTP request PREDICT to the server's REST port.
#
#   probe.sh startup    succeeds once the prediction is answered with 200
#   probe.sh ready      the same; a server that refuses because its queue is full (503) but still says that its model is
#                       up (HEALTH) stays ready: taking an overloaded replica away only overloads the others
#
# bash alone, since TensorFlow Serving's image has no curl.
set -u

status() { # of the answer to the HTTP request in file $1
  local line
  exec 3<>"/dev/tcp/127.0.0.1/$PORT" || return 1
  cat "$1" >&3
  IFS= read -r -t 10 line <&3 || return 1
  exec 3>&-
  set -- $line
  echo "${2-}"
}

answer=$(status "$PREDICT" 2>/dev/null)
[ "$answer" = 200 ] && exit 0
if [ "$1" = ready ] && [ "$answer" = 503 ] && [ "$(status "$HEALTH" 2>/dev/null)" = 200 ]; then
  exit 0
fi
echo "the prediction was answered with ${answer:-nothing}"
exit 1
