#!/bin/sh
# Takes the README's figures: rows and pictures into the folder named (default: results). Leave the machine alone meanwhile.
set -eu
out="${1:-results}"
mkdir -p "$out"
evonorm bench --preset headline --repeats 15 --layers evonorm-s0 evonorm-b0 frn-tlu bn-relu --json "$out/headline.jsonl"
evonorm bench --preset mini-inception resnet50 --dtypes bf16 --figures forward+backward --implementations kernel timm batch_norm+relu group_norm+silu \
  --json "$out/shapes.jsonl" --plot "$out/shapes.png"
evonorm bench --preset inference --dtypes bf16 --json "$out/inference.jsonl" --plot "$out/inference.png"
evonorm bench --network --dtypes bf16 --repeats 9 --json "$out/network.jsonl" --plot "$out/network.png"
