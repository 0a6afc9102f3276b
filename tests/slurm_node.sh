#!/usr/bin/env bash
# A SLURM of one node on loopback for tests: slurm_node.sh DIR CONTROLLER_PORT NODE_PORT
# Everything it writes is under DIR. It prints "ready", serves until its standard input closes
# (so it ends with whoever started it, however that ended), then cancels what runs and stops.
# Needs the Debian packages slurm-wlm and munge; users other than root can run it.
set -euo pipefail
root=$1
export SLURM_CONF=$root/slurm.conf PATH=/usr/sbin:/sbin:$PATH
host=$(hostname -s)
user=$(id -un)
mkdir -p "$root/state" "$root/spool" "$root/log"
(umask 077 && head -c 128 /dev/urandom >"$root/munge.key")

# CPUS: more than there are, so that jobs queue for memory and partitions, not for cores.
# OverMemoryKill: a job over its --mem is killed, as on clusters with cgroups.
cat >"$SLURM_CONF" <<CONF
ClusterName=test
SlurmctldHost=$host(127.0.0.1)
SlurmUser=$user
SlurmdUser=$user
AuthType=auth/munge
AuthInfo=socket=$root/munge.socket
CredType=cred/munge
SlurmctldPort=$2
SlurmdPort=$3
StateSaveLocation=$root/state
SlurmdSpoolDir=$root/spool
SlurmdParameters=config_overrides
SlurmctldPidFile=$root/slurmctld.pid
SlurmdPidFile=$root/slurmd.pid
SlurmctldLogFile=$root/log/slurmctld.log
SlurmdLogFile=$root/log/slurmd.log
DependencyParameters=kill_invalid_depend
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SwitchType=switch/none
MpiDefault=none
ReturnToService=2
SchedulerType=sched/backfill
SchedulerParameters=sched_interval=1,bf_interval=1,batch_sched_delay=0,sched_min_interval=0
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
DefMemPerCPU=1000
JobAcctGatherType=jobacct_gather/linux
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none
MinJobAge=300
KillWait=1
InactiveLimit=0
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=debug Nodes=$host Default=YES MaxTime=1-00:00:00 DefaultTime=00:10:00 State=UP
CONF

children=()
stop() {
    scancel --user "$user" --state=PENDING,RUNNING 2>/dev/null || true
    for _ in $(seq 30); do
        [ -z "$(squeue --noheader 2>/dev/null)" ] && break
        sleep 0.1
    done
    for ((i = ${#children[@]} - 1; i >= 0; i--)); do
        kill "${children[$i]}" 2>/dev/null || true
        wait "${children[$i]}" 2>/dev/null || true
    done
}
trap stop EXIT
trap 'exit 143' TERM INT

# --force: its folder may be below one that others can write, such as /tmp
munged --foreground --force --key-file="$root/munge.key" --socket="$root/munge.socket" \
    --pid-file="$root/munged.pid" --seed-file="$root/munged.seed" \
    --log-file="$root/log/munged.log" </dev/null >"$root/log/munged.out" 2>&1 &
children+=($!)
for _ in $(seq 50); do [ -S "$root/munge.socket" ] && break; sleep 0.05; done
slurmctld -D -f "$SLURM_CONF" </dev/null >"$root/log/slurmctld.out" 2>&1 &
children+=($!)
slurmd -D -f "$SLURM_CONF" </dev/null >"$root/log/slurmd.out" 2>&1 &
children+=($!)
for _ in $(seq 200); do
    [ "$(sinfo --noheader --format=%T 2>/dev/null)" = idle ] && { echo ready; break; }
    sleep 0.05
done
cat >/dev/null # until standard input closes
