#!/bin/bash
# Is started for each call, with the arguments as its last word.
echo "log line"
echo "err line" >&2
case "$1" in
*'"do":"error"'*) echo '{"error":"mine"}' ;;
*'"do":"text"'*) echo 'just text' ;;
*'"do":"exit"'*) exit 3 ;;
*'"do":"env"'*) echo "{\"name\":\"$__OW_ACTION_NAME\",\"id\":\"$__OW_ACTIVATION_ID\"}" ;;
*) echo "$1" ;;
esac
