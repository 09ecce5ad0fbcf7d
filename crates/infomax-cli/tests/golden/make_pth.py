"""Writes resnet.pth: a checkpoint of PyTorch with the weights of a tiny residual network of torchvision, and
resnet.safetensors, the same state dict in f16.

Run: python make_pth.py  (torch 2.15.0, torchvision 0.29.2, safetensors 0.8.0). Two stages of one block, 8 channels, the
stem for small images; beside the state dict the checkpoint has an epoch, as those of training scripts.
"""

import os

import torch
from safetensors.torch import save_file
from torch import nn
from torchvision.models.resnet import BasicBlock, ResNet

HERE = os.path.dirname(os.path.abspath(__file__))
torch.manual_seed(0)
model = ResNet(BasicBlock, [1, 1, 1, 1], num_classes=3)
model.inplanes, model.bn1 = 8, nn.BatchNorm2d(8)
model.conv1 = nn.Conv2d(3, 8, 3, 1, 1, bias=False)
for i in range(4):
    setattr(model, f"layer{i + 1}", model._make_layer(BasicBlock, 8 << i, 1, stride=1 if i == 0 else 2))
model.layer3 = model.layer4 = nn.Identity()
model.fc = nn.Linear(16, 3)
state = model.state_dict()
torch.save({"state_dict": state, "epoch": 3}, os.path.join(HERE, "resnet.pth"))
half = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
save_file(half, os.path.join(HERE, "resnet.safetensors"))
