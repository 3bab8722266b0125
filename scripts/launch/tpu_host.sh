#!/usr/bin/env bash
# Commands that scripts/launch/tpu_vm.sh runs on each host of a TPU slice:
#   tpu_host.sh install EXTRAS [NFS]   a virtual environment with the extras
#   tpu_host.sh run COMMAND [FLAG...]  in the background, independent of the connection
#   tpu_host.sh logs | stop
set -euo pipefail

# The images have Python 3.10: uv installs 3.12.
install() {
  if [ -n "$2" ] && ! mountpoint -q /shared; then
    sudo apt-get install -qq nfs-common
    sudo mkdir -p /shared
    sudo mount -t nfs "$2" /shared
  fi
  python3 -m pip install --quiet --user uv
  python3 -m uv venv --quiet --clear --python 3.12 ~/env
  python3 -m uv pip install --quiet --python ~/env/bin/python -e ".[$1]"
}

run() {
  if kill -0 "$(cat ~/run.pid 2>/dev/null)" 2>/dev/null; then
    echo 'error: a run is in progress: stop it first' >&2
    exit 2
  fi
  nohup bash "$0" train "$@" >~/run.log 2>&1 </dev/null &
}

train() {
  ~/env/bin/python -m "bert_jax.$1" "${@:2}" &
  echo $! >~/run.pid
  code=0
  wait $! || code=$?
  echo "exit code $code"
}

logs() { tail -n 100 -f ~/run.log; }

stop() { kill -TERM "$(cat ~/run.pid)"; }

cd ~/bert_jax
"$@"
