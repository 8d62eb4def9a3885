#!/bin/sh
# Takes the README's figures: rows and pictures into the folder named (default: results). Leave the machine alone meanwhile.
set -eu
out="${1:-results}"
mkdir -p "$out"
evonorm bench --preset headline --repeats 15 --compiled --json "$out/headline.jsonl" --plot "$out/headline.png"
evonorm bench --preset mini-inception resnet50 --dtypes bf16 --json "$out/shapes.jsonl" --plot "$out/shapes.png"
evonorm bench --preset inference --dtypes bf16 --json "$out/inference.jsonl" --plot "$out/inference.png"
evonorm bench --network --dtypes bf16 --repeats 9 --json "$out/network.jsonl" --plot "$out/network.png"
