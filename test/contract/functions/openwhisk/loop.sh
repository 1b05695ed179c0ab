#!/bin/bash
# A program that speaks ActionLoop and does not say when it is ready.
while read -r line; do
  name=$(expr "$line" : '.*"name":"\([^"]*\)"')
  echo "out $name"
  echo "{\"hello\":\"$name\"}" >&3
done
