#!/usr/bin/env bash
# A real SLURM on one machine, for tests: a controller and NODES nodes (default 2), all on the loopback interface, everything
# it writes in one folder of its own. Needs root and the packages slurm-wlm and munge; neither systemd nor control groups.
# Prints the folder; use it by  export SLURM_CONF=<folder>/slurm.conf  and end it with down.sh.
set -euo pipefail
nodes=${NODES:-2}
home=${LOSSBENCH_SLURM:-/run/lossbench-slurm}
host=$(hostname -s)

for tool in munged munge unmunge slurmctld slurmd sinfo; do
  command -v "$tool" >/dev/null || { echo "$tool is missing: apt-get install --no-install-recommends slurm-wlm munge" >&2; exit 3; }
done
[ "$(id -u)" = 0 ] || { echo "starting SLURM needs root" >&2; exit 3; }
bash "$(dirname "$0")/down.sh"
install -d -m 0755 "$home" "$home/state" "$home/log"
install -d -m 0700 "$home/key"

# Who is who: munged with a key and a socket of its own. It runs as root, the owner of its folders.
(umask 077; head -c 1024 /dev/urandom > "$home/key/munge.key")
munged --key-file="$home/key/munge.key" --seed-file="$home/key/seed" --socket="$home/munge.socket" \
  --pid-file="$home/munged.pid" --log-file="$home/log/munged.log" 2>>"$home/log/munged.log"
for _ in $(seq 50); do
  munge --no-input --socket="$home/munge.socket" 2>/dev/null | unmunge --socket="$home/munge.socket" >/dev/null 2>&1 && break
  sleep 0.1
done

# Fake graphics cards, so that requests for one are really scheduled.
for n in $(seq "$nodes"); do [ -e "$home/gpu$n" ] || mknod "$home/gpu$n" c 1 3; done

{
  cat <<CONF
ClusterName=lossbench
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=16817
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=$home/munge.socket
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
StateSaveLocation=$home/state
SlurmdSpoolDir=$home/spool.%n
SlurmctldPidFile=$home/slurmctld.pid
SlurmdPidFile=$home/slurmd.%n.pid
SlurmctldLogFile=$home/log/slurmctld.log
SlurmdLogFile=$home/log/slurmd.%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1
GresTypes=gpu
ReturnToService=2
KillWait=5
PartitionName=ci Nodes=n[1-$nodes] Default=YES MaxTime=INFINITE State=UP
CONF
  for n in $(seq "$nodes"); do
    echo "NodeName=n$n NodeHostname=$host NodeAddr=127.0.0.1 Port=$((16820 + n)) CPUs=1 RealMemory=3000 Gres=gpu:1 State=UNKNOWN"
  done
} > "$home/slurm.conf"
{
  echo "AutoDetect=off"
  for n in $(seq "$nodes"); do echo "NodeName=n$n Name=gpu File=$home/gpu$n"; done
} > "$home/gres.conf"

export SLURM_CONF=$home/slurm.conf
slurmctld
for n in $(seq "$nodes"); do
  install -d "$home/spool.n$n"
  slurmd -N "n$n"
done
for _ in $(seq 150); do
  idle=$(sinfo -h -N -t idle -o %N 2>/dev/null | wc -l)
  [ "$idle" = "$nodes" ] && { echo "$home"; exit 0; }
  sleep 0.1
done
echo "the nodes did not become idle; see $home/log" >&2
sinfo >&2 || true
exit 1
