#!/usr/bin/env bash
# Unpacks the project on a worker of a pod, and installs it: install.sh ARCHIVE FOLDER EXTRA
# FOLDER/project is the working tree, FOLDER/venv its Python. Staged corpora and runs stay.
set -eu

archive=$1 folder=$2 extra=$3
mkdir -p "$folder/project"
find "$folder/project" -mindepth 1 -maxdepth 1 ! -name cache ! -name runs -exec rm -rf {} +
tar --extract --gzip --file="$archive" --directory="$folder/project"
rm "$archive"

new_enough='import sys; sys.exit(sys.version_info < (3, 11))'
if [ ! -x "$folder/venv/bin/python" ]; then
  found=
  for python in python3.13 python3.12 python3.11 python3; do
    # Debian's Python cannot make an environment without its package python3-venv.
    if command -v "$python" >/dev/null && "$python" -c "$new_enough" &&
      "$python" -c 'import ensurepip' 2>/dev/null; then
      found=$python
      break
    fi
  done
  if [ -n "$found" ]; then
    "$found" -m venv "$folder/venv"
  else
    # uv brings a Python of its own, where the image's is too old.
    python3 -m pip install --quiet --user uv
    python3 -m uv venv --quiet --seed --python 3.12 "$folder/venv"
  fi
fi
"$folder/venv/bin/python" -m pip install --quiet --editable "$folder/project$extra"
echo 'launch-installed'
