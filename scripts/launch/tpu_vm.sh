#!/usr/bin/env bash
# Trains on all hosts of a TPU slice, from this machine; see docs/pods.md.
set -euo pipefail

usage="usage: scripts/launch/tpu_vm.sh create NAME                 create the slice
       scripts/launch/tpu_vm.sh install NAME                the last commit and its dependencies, all hosts
       scripts/launch/tpu_vm.sh run NAME COMMAND [FLAG...]  python -m bert_jax.COMMAND, all hosts
       scripts/launch/tpu_vm.sh logs NAME                   follow the log of one host
       scripts/launch/tpu_vm.sh stop NAME                   save, and end with exit code 75
       scripts/launch/tpu_vm.sh delete NAME                 delete the slice
Environment variables override the defaults:
  ZONE=us-west4-a  TYPE=v5litepod-16  VERSION=v2-alpha-tpuv5-lite  of the slice
  SPOT=1              cheaper chips, which may be preempted at any time
  NFS=HOST:/PATH      a shared disk, mounted as /shared by install
  EXTRAS=data,tpu     of pyproject.toml, for install
  WORKER=0            the host of logs"
action=${1:-} name=${2:-}

fail() { echo "error: $*" >&2; exit 2; }
tpu() { gcloud compute tpus tpu-vm "$@" --zone="${ZONE:-us-west4-a}"; }
on() { tpu ssh "$name" --worker="$1" --command="$2"; }
host() { on "$1" "bash ~/bert_jax/scripts/launch/tpu_host.sh$(printf ' %q' "${@:2}")"; }

case $action in
  -h | --help | help) echo "$usage"; exit 0 ;;
  create | install | run | logs | stop | delete) ;;
  *) echo "$usage" >&2; fail "unknown '$action': choose create, install, run, logs, stop or delete" ;;
esac
[[ $name =~ ^[a-z][-a-z0-9]*$ ]] ||
  fail "'$name' is not the name of a slice: write scripts/launch/tpu_vm.sh $action NAME, in lowercase"
[[ $action != run || ${3:-} =~ ^[a-z]+$ ]] ||
  fail "name a command, as in: scripts/launch/tpu_vm.sh run $name pretrain --config=... --workdir=..."
command -v gcloud >/dev/null ||
  fail "gcloud is not installed: see https://cloud.google.com/sdk/docs/install"

case $action in
  create)
    tpu create "$name" --accelerator-type="${TYPE:-v5litepod-16}" \
      --version="${VERSION:-v2-alpha-tpuv5-lite}" ${SPOT:+--spot} ;;
  install)
    archive=$(mktemp)
    trap 'rm -f "$archive"' EXIT
    git -C "$(dirname "$0")/../.." archive --format=tar.gz --output="$archive" HEAD
    tpu scp "$archive" "$name:bert_jax.tar.gz" --worker=all
    on all "rm -rf ~/bert_jax && mkdir ~/bert_jax && tar -xzf ~/bert_jax.tar.gz -C ~/bert_jax"
    host all install "${EXTRAS:-data,tpu}" "${NFS:-}" ;;
  run) host all run "${@:3}" ;;
  logs) host "${WORKER:-0}" logs ;;
  stop) host all stop ;;
  delete) tpu delete "$name" --quiet ;;
esac
