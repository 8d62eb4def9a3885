#!/bin/sh
# Takes the README's figures: rows and pictures into the folder named (default: results). Leave the machine alone meanwhile.
set -eu
out="${1:-results}"
mkdir -p "$out"
evonorm bench --preset headline --repeats 15 --layers evonorm-s0 evonorm-b0 frn-tlu bn-relu --json "$out/headline.jsonl"
evonorm bench --network --dtypes bf16 --repeats 7 --implementations kernel timm batch_norm+relu group_norm+silu \
  --json "$out/network.jsonl"
evonorm bench --preset mini-inception resnet50 --dtypes bf16 --figures forward+backward --repeats 7 \
  --layers evonorm-s0 evonorm-b0 frn-tlu --implementations kernel batch_norm+relu group_norm+silu \
  --json "$out/shapes.jsonl" --plot "$out/shapes.png"
