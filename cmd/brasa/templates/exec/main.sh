#!/bin/sh
# Run once per call: the input comes on stdin, what is written to stdout is the answer, stderr
# goes to the logs (brasa logs). An exit code other than 0 fails the call.
input=$(cat)
echo "got ${#input} characters" >&2
printf 'Hello! You sent: %s\n' "$input"
