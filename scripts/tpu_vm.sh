#!/usr/bin/env bash
# Trains on all hosts of a TPU slice, from this machine; see docs/pods.md.
set -euo pipefail

fail() { echo "error: $*" >&2; exit 2; }

usage() {
  cat <<'TEXT'
usage: scripts/tpu_vm.sh create NAME                 make the slice
       scripts/tpu_vm.sh install NAME                the last commit and its needs, all hosts
       scripts/tpu_vm.sh run NAME COMMAND [FLAG...]  python -m bert_jax.COMMAND, all hosts
       scripts/tpu_vm.sh logs NAME                   follow the log of one host
       scripts/tpu_vm.sh stop NAME                   save, and end with exit code 75
       scripts/tpu_vm.sh delete NAME                 give the slice back
The environment says what is not the default:
  ZONE=us-west4-a  TYPE=v5litepod-16  VERSION=v2-alpha-tpuv5-lite  of the slice
  SPOT=1              cheaper chips, which may be taken away at any moment
  NFS=HOST:/PATH      a shared disk, mounted as /shared by install
  EXTRAS=data,tpu     of pyproject.toml, for install
  WORKER=0            the host of logs
TEXT
}

tpu() { gcloud compute tpus tpu-vm "$@" --zone="${ZONE:-us-west4-a}"; }

# Runs shell on the hosts that $1 names: all of them, or one.
on() { tpu ssh "$name" --worker="$1" --command="$2"; }

# What install does on each host. Its images have Python 3.10: uv brings another.
setup() {
  cat <<TEXT
set -e
if [ -n '${NFS:-}' ] && ! mountpoint -q /shared; then
  sudo apt-get install -qq nfs-common
  sudo mkdir -p /shared
  sudo mount -t nfs '${NFS:-}' /shared
fi
rm -rf ~/bert_jax && mkdir ~/bert_jax && cd ~/bert_jax
tar -xzf ~/bert_jax.tar.gz
python3 -m pip install --quiet --user uv
python3 -m uv venv --quiet --clear --python 3.12 ~/env
python3 -m uv pip install --quiet --python ~/env/bin/python -e '.[${EXTRAS:-data,tpu}]'
TEXT
}

# What run does on each host: the command goes on when the connection is gone.
start() {
  local train
  train="\$HOME/env/bin/python -m bert_jax.$(printf '%q ' "$@")& echo \$! >~/run.pid
wait \$!; echo exit code \$?"
  cat <<TEXT
if kill -0 "\$(cat ~/run.pid 2>/dev/null)" 2>/dev/null; then
  echo 'error: a run is going on: stop it first' >&2
  exit 2
fi
cd ~/bert_jax || exit 2
nohup bash -c $(printf %q "$train") >~/run.log 2>&1 </dev/null &
TEXT
}

case ${1:-} in
  -h | --help | help) usage; exit 0 ;;
  create | install | run | logs | stop | delete) action=$1 name=${2:-} ;;
  *) usage >&2; fail "'${1:-}' is none of create, install, run, logs, stop, delete" ;;
esac
[[ $name =~ ^[a-z][-a-z0-9]*$ ]] ||
  fail "'$name' is no name of a slice: write scripts/tpu_vm.sh $action NAME, in small letters"
[[ $action != run || ${3:-} =~ ^[a-z]+$ ]] ||
  fail "say what to run: scripts/tpu_vm.sh run $name pretrain --config=... --workdir=..."
command -v gcloud >/dev/null ||
  fail "gcloud is not there: install it from https://cloud.google.com/sdk/docs/install"

case $action in
  create)
    tpu create "$name" --accelerator-type="${TYPE:-v5litepod-16}" \
      --version="${VERSION:-v2-alpha-tpuv5-lite}" ${SPOT:+--spot} ;;
  install)
    archive=$(mktemp)
    trap 'rm -f "$archive"' EXIT
    git -C "$(dirname "$0")/.." archive --format=tar.gz --output="$archive" HEAD
    tpu scp "$archive" "$name:bert_jax.tar.gz" --worker=all
    on all "$(setup)" ;;
  run) on all "$(start "${@:3}")" ;;
  logs) on "${WORKER:-0}" 'tail -n 100 -f ~/run.log' ;;
  stop) on all "kill -TERM \"\$(cat ~/run.pid)\"" ;;
  delete) tpu delete "$name" --quiet ;;
esac
