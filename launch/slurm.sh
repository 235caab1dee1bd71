#!/usr/bin/env bash
# Not run by us yet on a Slurm cluster: tests/test_launch_files.py runs it with stand-ins for srun, scontrol and ray.
#
#   sbatch launch/slurm.sh                                            every notebook: tier node on one node, else cluster
#   sbatch launch/slurm.sh python -m r1repro r1-zero --tier cluster --run-dir /scratch/me/run     or any other command
#
# Ten minutes before the time limit, and when Slurm takes the nodes away, the stage is asked to stop at its next
# checkpoint, and the job goes back into the queue; there it goes on. See launch/README.md.

# EDIT 1 of 2: how many nodes, the GPUs of each, how long; add --partition and --account if yours wants them.
#SBATCH --nodes=4
#SBATCH --gpus-per-node=8
#SBATCH --time=24:00:00

#SBATCH --job-name=r1repro
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --mem=0
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log
#SBATCH --signal=B:USR1@600

# EDIT 2 of 2: a folder that all nodes see; the checkout, from which sbatch is called, must be seen by all as well.
shared=${R1REPRO_SHARED:-$HOME/r1repro-shared}

set -uo pipefail
patience=540 # seconds of the 600 that a rollout may take to come to its end; then the one before it is the last
port=6379

export R1REPRO_OUT=${R1REPRO_OUT:-$shared/out} R1REPRO_DATA=${R1REPRO_DATA:-$shared/data} HF_HOME=${HF_HOME:-$shared/hub}
export R1REPRO_STOP="$R1REPRO_OUT/stop-$SLURM_JOB_ID"
export PATH="$PWD/.venv-gpu/bin:$PATH"
mkdir -p "$R1REPRO_OUT" && rm -f "$R1REPRO_STOP"

nodes=${SLURM_NNODES:-1}
if (($# == 0)); then
    tier=$([[ $nodes == 1 ]] && echo node || echo cluster)
    set -- python -m r1repro reproduce --tier "$tier"
fi
if ((nodes > 1)); then
    # A secret of this user's jobs: without it anybody in the network could run programs as this user.
    export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$shared/ray-token" RAY_USAGE_STATS_ENABLED=0
    [[ -s $RAY_AUTH_TOKEN_PATH ]] ||
        (umask 077 && head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \n' >"$RAY_AUTH_TOKEN_PATH")
    export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=600
    head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
    set -- srun --nodes="$nodes" --ntasks="$nodes" --cpus-per-task="${SLURM_CPUS_ON_NODE:-1}" --wait=120 \
        ray symmetric-run --address "$head:$port" --min-nodes "$nodes" -- env RAY_ADDRESS="$head:$port" "$@"
fi

asked=""
stop() {
    [[ -z $asked ]] || return 0
    echo "slurm.sh: asked to stop, $(date)"
    touch "$R1REPRO_STOP"
    (
        sleep "$patience" &
        trap 'kill %1; exit' TERM
        wait %1 && scontrol requeue "$SLURM_JOB_ID"
    ) &
    asked=$!
}
trap stop USR1 TERM

# Slurm's SIGTERM goes to every process; only the stages, which know where to stop, are to act on it.
(trap '' TERM && exec "$@") &
work=$!
gone=""
while [[ -z $gone ]]; do # a signal ends a wait, not the work; of work that is gone wait has the last word
    kill -0 "$work" 2>/dev/null || gone=yes
    wait "$work"
    code=$?
    ((code > 128)) || gone=yes
done

if [[ -n $asked ]]; then
    kill "$asked" 2>/dev/null
    rm -f "$R1REPRO_STOP"
    if ((code != 0)); then
        echo "slurm.sh: back into the queue, $(date)"
        scontrol requeue "$SLURM_JOB_ID"
        exit 0
    fi
fi
exit "$code"
