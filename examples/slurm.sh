#!/usr/bin/env bash
# sbatch examples/slurm.sh --config configs/fineweb-edu-124m.yaml
# One task per GPU, started by srun itself, so that Slurm's warning reaches every process. Two minutes before the time is up
# the run finishes its step, saves and exits 143; the job is put back in the queue and goes on from there.
#SBATCH --job-name=tinygpt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=8
#SBATCH --time=12:00:00
#SBATCH --signal=USR1@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=slurm-%j.log

export MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)}
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 20000))}

# shellcheck disable=SC2016 # the variables are each task's own
srun --kill-on-bad-exit=1 bash -c '
  export RANK=$SLURM_PROCID LOCAL_RANK=$SLURM_LOCALID WORLD_SIZE=$SLURM_NTASKS OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK
  exec python run_clm.py "$@"' run_clm "$@"
status=$?

if [ "$status" -eq 143 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
