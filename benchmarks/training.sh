#!/usr/bin/env bash
# The training runs behind benchmarks/results/: about an hour on two cores. One thread a run.
#
#     bash benchmarks/training.sh FOLDER
#
# Run folders go into FOLDER; what benchmarks/results/ keeps of each is its evaluations.csv;
# of HalfCheetah also the configuration and the picture.
set -euo pipefail
folder=${1:?usage: bash benchmarks/training.sh FOLDER}
for seed in 0 1 2; do
    icnn-rl train pendulum --seed "$seed" --run-dir "$folder/pendulum-seed$seed"
    icnn-rl evaluate "$folder/pendulum-seed$seed" --episodes 20
done
for seed in 0 1 2; do
    icnn-rl train inverted-pendulum --seed "$seed" --run-dir "$folder/inverted-pendulum-seed$seed"
    icnn-rl evaluate "$folder/inverted-pendulum-seed$seed" --episodes 20
done
icnn-rl train halfcheetah --training.steps 100000 --run-dir "$folder/halfcheetah-seed0"
icnn-rl evaluate "$folder/halfcheetah-seed0" --episodes 20
