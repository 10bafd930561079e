#!/usr/bin/env bash
# End the SLURM that up.sh started, by the process ids that it noted, and remove its folder.
home=${LOSSBENCH_SLURM:-/run/lossbench-slurm}
[ -d "$home" ] || exit 0
if [ -s "$home/slurmctld.pid" ]; then
  SLURM_CONF=$home/slurm.conf timeout 5 scancel --state=RUNNING --state=PENDING --user="$(id -un)" 2>/dev/null
fi
alive() {  # a zombie is gone; nobody may be there to reap it
  [ -r "/proc/$1/stat" ] && ! grep -q ') Z' "/proc/$1/stat"
}
for file in "$home"/slurmd.*.pid "$home/slurmctld.pid" "$home/munged.pid"; do
  [ -s "$file" ] || continue
  pid=$(cat "$file")
  kill "$pid" 2>/dev/null
  for _ in $(seq 50); do alive "$pid" || break; sleep 0.1; done
  alive "$pid" && kill -9 "$pid" 2>/dev/null
done
rm -rf "$home"
exit 0
