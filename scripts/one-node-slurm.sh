#!/usr/bin/env bash
# A real Slurm on this machine alone, for tests: one node and all its files below one folder.
#
#   scripts/one-node-slurm.sh start DIR   # prints the exports that point Slurm's commands to it
#   scripts/one-node-slurm.sh stop DIR    # ends its daemons and jobs at once; the logs stay
#
# Needs root and Debian's packages slurm-wlm and munge; no systemd, cgroups or accounting database.
# The node has two pretend GPUs: each job gets its own CUDA_VISIBLE_DEVICES, with nothing behind it.
set -euo pipefail

fail() {
    echo "one-node-slurm: $1" >&2
    tail -n 5 "$dir"/*.log >&2 2>/dev/null || true
    exit 1
}

ours() { # our daemons and what the jobs started, known by environment; two kinds hide theirs
    grep -lzxF "SLURM_CONF=$dir/slurm.conf" /proc/[0-9]*/environ 2>/dev/null |
        xargs -r grep -lzxF SLURMD_NODENAME=one-node 2>/dev/null | cut -d/ -f3
    for name in $(grep -lxE 'slurm(stepd|scriptd)' /proc/[0-9]*/comm 2>/dev/null); do
        ls -l "${name%comm}fd" 2>/dev/null | grep -qF "> $dir/slurm" && echo "$name" | cut -d/ -f3
    done
}

stop() {
    for _ in $(seq 100); do
        left=$(ours || true)
        [ -n "$left" ] || return 0
        kill -KILL $left 2>/dev/null || true
        sleep 0.1
    done
    fail "these processes do not end: $(echo $left)"
}

state() { # of the node; empty where no Slurm answers
    [ -f "$dir/slurm.conf" ] || return 0
    SLURM_CONF=$dir/slurm.conf timeout 5 sinfo -h -o %T 2>/dev/null || true
}

configure() {
    rm -rf "$dir"/state "$dir"/spool "$dir"/bin "$dir"/gpu? "$dir"/munge.* "$dir"/*.log
    mkdir "$dir/state" "$dir/spool" "$dir/bin"
    # snakemake-executor-plugin-slurm-jobstep 0.6.1 calls srun without SLURM_CONF.
    printf '#!/bin/sh\nSLURM_CONF=%s exec %s "$@"\n' \
        "$dir/slurm.conf" "$(command -v srun)" >"$dir/bin/srun"
    chmod +x "$dir/bin/srun"
    (umask 077 && head -c 128 /dev/urandom >"$dir/munge.key")
    for gpu in "$dir/gpu0" "$dir/gpu1"; do # Slurm counts plain files too, but gives them no number
        mknod "$gpu" c 1 3 2>/dev/null || touch "$gpu"
    done
    echo "NodeName=one-node Name=gpu File=$dir/gpu[0-1]" >"$dir/gres.conf"
    echo CgroupPlugin=disabled >"$dir/cgroup.conf"
    host=$(uname -n | cut -d. -f1)
    cpus=$(getconf _NPROCESSORS_ONLN) # nproc would obey OMP_NUM_THREADS
    memory=$(awk '/^MemTotal/ { print int($2 / 1024) }' /proc/meminfo)
    port=$((10000 + $$ % 20000)) # two free ones, below those that clients get
    while (: <"/dev/tcp/127.0.0.1/$port" || : <"/dev/tcp/127.0.0.1/$((port + 1))") 2>/dev/null; do
        port=$((port + 2))
    done
    cat >"$dir/slurm.conf" <<END
ClusterName=one-node
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$port
SlurmdPort=$((port + 1))
SlurmUser=root
StateSaveLocation=$dir/state
SlurmdSpoolDir=$dir/spool
SlurmctldPidFile=$dir/slurmctld.pid
SlurmdPidFile=$dir/slurmd.pid
SlurmctldLogFile=$dir/slurmctld.log
SlurmdLogFile=$dir/slurmd.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
GresTypes=gpu
# A job that lost its node waits cred_expire seconds, then for the scheduler's next look.
JobRequeue=1
AuthInfo=socket=$dir/munge.socket,cred_expire=5
SchedulerParameters=sched_interval=2,bf_interval=2
KillWait=2
ReturnToService=2
SlurmdParameters=config_overrides
NodeName=one-node NodeHostname=$host NodeAddr=127.0.0.1 CPUs=$cpus RealMemory=$memory Gres=gpu:2
PartitionName=test Nodes=one-node Default=YES MaxTime=INFINITE
END
}

start() {
    case $(state) in idle | mixed | allocated) return ;; esac # it runs already
    stop
    configure
    run="env SLURM_CONF=$dir/slurm.conf SLURMD_NODENAME=one-node"
    # As root and by force: the folder may be closed to the user munge and to others.
    $run munged --force --key-file="$dir/munge.key" --socket="$dir/munge.socket" \
        --seed-file="$dir/munge.seed" --pid-file="$dir/munged.pid" --log-file="$dir/munged.log" ||
        fail "munged did not start"
    $run slurmctld -c || fail "slurmctld did not start"
    $run slurmd -N one-node || fail "slurmd did not start"
    SECONDS=0
    until [ "$(state)" = idle ]; do
        [ $SECONDS -lt 30 ] || fail "the node is not idle after 30 s, but: '$(state)'"
        sleep 0.2
    done
}

case "$#${1-}" in 2start | 2stop) ;; *) sed -n '4,5s/^# *//p' "$0" >&2; exit 2 ;; esac
mkdir -p "$2"
dir=$(cd "$2" && pwd -P)
[ "$(id -u)" = 0 ] || fail "only root can do this"
for program in munged slurmctld slurmd srun; do
    command -v $program >/dev/null || fail "$program is missing: install slurm-wlm and munge"
done
"$1"
[ "$1" = stop ] || echo "export SLURM_CONF=$dir/slurm.conf PATH=$dir/bin:\$PATH"
