#!/usr/bin/env bash
# Guess: a torch.export program without dynamic shapes becomes an OpenVINO model with the same static shapes.
# Seen with OpenVINO 2026.4.1 and torch 2.14.1: every dimension of the converted inputs is dynamic, save those that the
# graph itself fixes, such as channels before a convolution. The model then compiles for unknown sizes, without a word:
# in a generator of faces that ran 1.3 times (float32) to 1.5 times (bfloat16) as long on one core of an AMD EPYC.
# `Model.reshape` with the example's shapes brings them back; convert_model's `input` does so too.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 openvino==2026.4.1 packaging==26.4 # which OpenVINO imports here and does not require
"$folder/venv/bin/python" - <<'PYTHON'
import openvino
import torch

layers = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.AvgPool2d(2)).eval()
image = torch.zeros(1, 3, 64, 64)
program = torch.export.export(layers, (image,))
[placeholder] = [node for node in program.graph.nodes if node.name in program.graph_signature.user_inputs]
shape = placeholder.meta["val"].shape
print("program:", list(shape))
assert all(isinstance(side, int) for side in shape), "torch.export made the shapes symbolic"
model = openvino.convert_model(program)
print("converted:", model.inputs[0].partial_shape)
assert model.is_dynamic() and model.inputs[0].partial_shape[2].is_dynamic, "static shapes are kept now"
model.reshape(list(shape))
print("reshaped:", model.inputs[0].partial_shape, model.outputs[0].partial_shape)
given = openvino.convert_model(program, input=[1, 3, 64, 64])
print("given:", given.inputs[0].partial_shape)
assert not model.is_dynamic() and not given.is_dynamic()
PYTHON
