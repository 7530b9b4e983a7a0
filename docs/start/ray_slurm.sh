#!/usr/bin/env bash
# A sweep on hosts that Slurm gives: sbatch ray_slurm.sh --model /data/llava-1.5-7b-hf --task /data/questions.jsonl …
# Arguments are those of `adallava sweep`; --output lies on a disk that the first host sees. Killed, out of time, or a
# host lost: the same sbatch goes on with what the run folder holds.
#SBATCH --job-name=adallava-sweep
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
set -euo pipefail

port=6379
mapfile -t hosts < <(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${hosts[0]}
address=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname --ip-address | awk '{print $1}')
export RAY_ADDRESS="$address:$port" RAY_USAGE_STATS_ENABLED=0
# Who else is on these hosts must not run code as you: a token, which all of them find in the home folder that they share.
export RAY_AUTH_MODE=token
ray get-auth-token --generate >/dev/null

# One a host, each held by Slurm: what it has started ends with the job.
on() { srun --nodes=1 --ntasks=1 --nodelist="$1" --overlap "${@:2}"; }
cores=${SLURM_CPUS_PER_TASK:-1} gpus=${SLURM_GPUS_ON_NODE:-0}

on "$head" ray start --head --block --node-ip-address="$address" --port="$port" --num-cpus="$cores" --num-gpus="$gpus" &
until (exec 3<>"/dev/tcp/$address/$port") 2>/dev/null; do sleep 2; done
for host in "${hosts[@]:1}"; do
  on "$host" ray start --block --address="$RAY_ADDRESS" --num-cpus="$cores" --num-gpus="$gpus" &
done

on "$head" adallava sweep --executor ray --address "$RAY_ADDRESS" "$@"
