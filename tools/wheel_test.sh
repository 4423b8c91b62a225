#!/usr/bin/env bash
# wheel_test.sh BIN: uses the commands of an installed wheel in an empty folder, as a new user would.
set -euo pipefail
bin=$(cd "$1" && pwd)
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
unset PYTHONPATH TF_CPP_MIN_LOG_LEVEL

"$bin/python" -c '
import sys, vit_tf
assert vit_tf.__file__.startswith(sys.prefix), vit_tf.__file__
from PIL import Image
Image.effect_noise((64, 48), 50).save("noise.jpg")'
"$bin/vit-tf" --help | grep -q predict
"$bin/vit-tf" list 'vit_base_patch16_*' | grep -q vit_base_patch16_224
"$bin/vit-tf" predict noise.jpg --csv predictions.csv 2> errors.txt
test "$(wc -l < predictions.csv)" = 2
test "$(wc -l < errors.txt)" = 1  # the note, and nothing of TensorFlow
"$bin/vit-tf" summary cifar10 --json | grep -q 1944163
"$bin/vit-tf" convert cifar10 model.keras
"$bin/vit-tf" explain noise.jpg --out report
"$bin/vit-tf" train --data sample --minutes 0.5 --out run
"$bin/vit-tf" predict noise.jpg --weights run
"$bin/vit-tf" evaluate sample --weights run --out results
echo "the wheel works"
