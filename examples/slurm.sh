#!/bin/bash
# A distillation that Slurm may stop at any time and starts again until it is done:
#
#     sbatch examples/slurm.sh --dataset c-mnist-fg --data-root DATA --method dm --debias fairdd --ipc 10 --out runs/bg
#
# Options are those of fastdd distill, with --out: a job that starts again has to find its run.
#SBATCH --job-name=fastdd
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --mem=32G
#SBATCH --time=04:00:00
#SBATCH --requeue
# Five minutes before the time is up, SIGUSR1 to this script; a checkpoint takes seconds, an evaluation is given up.
#SBATCH --signal=B:USR1@300
# A job that starts again goes on with the same log.
#SBATCH --open-mode=append
#SBATCH --output=%x-%j.log

set -u
export OMP_NUM_THREADS="${SLURM_CPUS_PER_TASK:-1}"
ENDED_BY_SCHEDULER=75 # of fastdd: stopped by a signal, after a checkpoint; --resume goes on

fastdd distill "$@" --resume &
child=$!

# Bash runs a trap only when nothing else is in its foreground, hence the & and the wait.
signalled=
trap 'signalled=1; kill -s USR1 "$child"' USR1
trap 'signalled=1; kill -s TERM "$child"' TERM # preemption
while :; do
    wait "$child"
    code=$?
    [ -n "$signalled" ] || break # else the wait itself was interrupted, and the run is still at its checkpoint
    signalled=
done

# 138 and 143 are the signals themselves, where they came before fastdd had begun.
if [[ "$code" =~ ^($ENDED_BY_SCHEDULER|138|143)$ ]]; then
    echo "stopped by a signal (code $code); job $SLURM_JOB_ID is put back into the queue"
    scontrol requeue "$SLURM_JOB_ID"
    exit 0
fi
exit "$code"
