#!/usr/bin/env bash
# Test sweeps on a real one-machine SLURM: installs what is missing where that is allowed, runs the tests, takes everything down again.
# Where SLURM is neither here nor installable it says that SLURM was not tested, and that is no failure.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
cd "$here/../.."
unset PYTHONDONTWRITEBYTECODE

not_tested() { echo "SLURM was NOT tested: $1"; exit 0; }

[ "$(uname)" = Linux ] || not_tested "it needs Linux"
[ "$(id -u)" = 0 ] || not_tested "starting it needs root"
if ! command -v sbatch >/dev/null || ! command -v munged >/dev/null; then
  command -v apt-get >/dev/null || not_tested "the packages slurm-wlm and munge are not installed, and there is no apt-get"
  echo "installing slurm-wlm and munge"
  export DEBIAN_FRONTEND=noninteractive
  { timeout 60 apt-get update -qq && timeout 120 apt-get install -y -qq --no-install-recommends slurm-wlm munge; } >/dev/null 2>&1 \
    || not_tested "the packages slurm-wlm and munge could not be installed"
fi
if ! .venv/bin/python -c "import dask_jobqueue, cryptography" 2>/dev/null; then
  uv=$(command -v uv || echo .venv/bin/uv)
  UV_PROJECT_ENVIRONMENT=.venv "$uv" sync --quiet --inexact --extra test --extra cluster || not_tested "the extra 'cluster' could not be installed"
fi

trap 'bash "$here/down.sh"' EXIT
trap 'exit 130' INT TERM
timeout --kill-after=20 "${SLURM_TEST_SECONDS:-240}" .venv/bin/pytest -m "slurm and not slow" "$here"
