"""Networks for small pictures as well-known repositories build and name them, written out plainly.

Each is a twin of what the package builds: other names, other code, the same function.
"""

import torch
from torch import nn
from torch.nn import functional as F


class _OptionA(nn.Module):
    """akamaster/pytorch_resnet_cifar10: shortcuts without weights."""

    def __init__(self, inside, out, stride, option):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.change, self.option = out - inside, option
        self.shortcut = nn.Sequential()
        if stride != 1 and option == "B":
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, out, 1, stride, bias=False), nn.BatchNorm2d(out)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        if self.change and self.option == "A":
            half = x[:, :, ::2, ::2]
            zeros = half.new_zeros(len(x), self.change // 2, *half.shape[2:])
            shortcut = torch.cat([zeros, half, zeros], dim=1)
        else:
            shortcut = self.shortcut(x)
        return F.relu(out + shortcut)


class HeResNet(nn.Module):
    def __init__(self, blocks, classes=10, option="A"):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inside = 16
        for stage in (1, 2, 3):
            layers = []
            for number in range(blocks):
                out, stride = 8 << stage, 2 if stage > 1 and number == 0 else 1
                layers.append(_OptionA(inside, out, stride, option))
                inside = out
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.linear = nn.Linear(64, classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer3(self.layer2(self.layer1(out)))
        out = F.avg_pool2d(out, out.size()[3])
        return self.linear(out.view(out.size(0), -1))


class _PreAct(nn.Module):
    """kuangliu/pytorch-cifar, preact_resnet.py; `bottleneck` is its PreActBottleneck."""

    def __init__(self, inside, planes, stride, bottleneck):
        super().__init__()
        out = 4 * planes if bottleneck else planes
        self.bn1 = nn.BatchNorm2d(inside)
        if bottleneck:
            self.conv1 = nn.Conv2d(inside, planes, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, stride, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(planes)
            self.conv3 = nn.Conv2d(planes, out, 1, bias=False)
        else:
            self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(planes)
            self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        if stride != 1 or inside != out:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, out, 1, stride, bias=False))

    def forward(self, x):
        out = F.relu(self.bn1(x))
        shortcut = self.shortcut(out) if hasattr(self, "shortcut") else x
        out = self.conv2(F.relu(self.bn2(self.conv1(out))))
        if hasattr(self, "conv3"):
            out = self.conv3(F.relu(self.bn3(out)))
        return out + shortcut


class PreActResNet(nn.Module):
    def __init__(self, depths, classes=10, *, width=64, bottleneck=False, final=False):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        inside = width
        for stage, depth in enumerate(depths, 1):
            layers = []
            for number in range(depth):
                planes = width << (stage - 1)
                stride = 2 if stage > 1 and number == 0 else 1
                layers.append(_PreAct(inside, planes, stride, bottleneck))
                inside = 4 * planes if bottleneck else planes
            self.add_module(f"layer{stage}", nn.Sequential(*layers))
        self.stages = len(depths)
        if final:  # as in locuslab/fast_adversarial
            self.bn = nn.BatchNorm2d(inside)
        self.linear = nn.Linear(inside, classes)

    def forward(self, x):
        out = self.conv1(x)
        for stage in range(1, self.stages + 1):
            out = getattr(self, f"layer{stage}")(out)
        if hasattr(self, "bn"):
            out = F.relu(self.bn(out))
        out = F.avg_pool2d(out, out.shape[3])
        return self.linear(out.view(out.size(0), -1))


class _Wide(nn.Module):
    """xternalz/WideResNet-pytorch."""

    def __init__(self, inside, out, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, out, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out)
        self.conv2 = nn.Conv2d(out, out, 3, 1, 1, bias=False)
        self.equal = inside == out
        self.convShortcut = None if self.equal else nn.Conv2d(inside, out, 1, stride, bias=False)

    def forward(self, x):
        if not self.equal:
            x = F.relu(self.bn1(x))
        else:
            out = F.relu(self.bn1(x))
        out = F.relu(self.bn2(self.conv1(out if self.equal else x)))
        out = self.conv2(out)
        return torch.add(x if self.equal else self.convShortcut(x), out)


class _Stage(nn.Module):
    def __init__(self, layers):
        super().__init__()
        self.layer = nn.Sequential(*layers)

    def forward(self, x):
        return self.layer(x)


class WideResNet(nn.Module):
    def __init__(self, depth, wide, classes=10):
        super().__init__()
        n, sizes = (depth - 4) // 6, [16, 16 * wide, 32 * wide, 64 * wide]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        for stage in (1, 2, 3):
            first = _Wide(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2)
            rest = [_Wide(sizes[stage], sizes[stage], 1) for _ in range(n - 1)]
            self.add_module(f"block{stage}", _Stage([first, *rest]))
        self.bn1 = nn.BatchNorm2d(sizes[3])
        self.fc = nn.Linear(sizes[3], classes)
        self.nChannels = sizes[3]

    def forward(self, x):
        out = self.block3(self.block2(self.block1(self.conv1(x))))
        out = F.relu(self.bn1(out))
        out = F.avg_pool2d(out, out.shape[3])
        return self.fc(out.view(-1, self.nChannels))


def functional_wide(params, x):
    """Return the logits of szagoruyko/wide-residual-networks (pytorch/resnet.py), eval mode."""

    def norm(x, base):
        keys = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(params[f"{base}.{key}"] for key in keys), training=False)

    def block(x, base, stride):
        o1 = F.relu(norm(x, f"{base}.bn0"))
        y = F.conv2d(o1, params[f"{base}.conv0"], stride=stride, padding=1)
        o2 = F.relu(norm(y, f"{base}.bn1"))
        z = F.conv2d(o2, params[f"{base}.conv1"], stride=1, padding=1)
        if f"{base}.convdim" in params:
            return z + F.conv2d(o1, params[f"{base}.convdim"], stride=stride)
        return z + x

    out = F.conv2d(x, params["conv0"], padding=1)
    for group, stride in enumerate((1, 2, 2)):
        number = 0
        while f"group{group}.block{number}.conv0" in params:
            out = block(out, f"group{group}.block{number}", stride if number == 0 else 1)
            number += 1
    out = F.relu(norm(out, "bn"))
    out = F.avg_pool2d(out, out.shape[3], 1, 0)
    return F.linear(out.view(out.size(0), -1), params["fc.weight"], params["fc.bias"])


def wide_params(blocks, wide, classes=10):
    """Return random parameters by szagoruyko's names."""
    params, sizes = {"conv0": torch.randn(16, 3, 3, 3) / 5}, [16, 16 * wide, 32 * wide, 64 * wide]

    def norm(base, size):
        params[f"{base}.weight"], params[f"{base}.bias"] = torch.rand(size), torch.randn(size)
        params[f"{base}.running_mean"] = torch.randn(size) / 9
        params[f"{base}.running_var"] = torch.rand(size) + 0.5

    for group in range(3):
        for number in range(blocks):
            base, inside, out = f"group{group}.block{number}", sizes[group], sizes[group + 1]
            inside = inside if number == 0 else out
            params[f"{base}.conv0"] = torch.randn(out, inside, 3, 3) / (3 * inside**0.5)
            params[f"{base}.conv1"] = torch.randn(out, out, 3, 3) / (3 * out**0.5)
            norm(f"{base}.bn0", inside)
            norm(f"{base}.bn1", out)
            if inside != out:
                params[f"{base}.convdim"] = torch.randn(out, inside, 1, 1) / inside**0.5
    norm("bn", sizes[3])
    params["fc.weight"], params["fc.bias"] = torch.randn(classes, sizes[3]), torch.randn(classes)
    return params


class _Biased(nn.Module):
    """meliketoy/wide-resnet.pytorch."""

    def __init__(self, inside, planes, stride):
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inside)
        self.conv1 = nn.Conv2d(inside, planes, kernel_size=3, padding=1, bias=True)
        self.dropout = nn.Dropout(p=0.3)
        self.bn2 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, stride=stride, padding=1, bias=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != planes:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, planes, 1, stride=stride, bias=True))

    def forward(self, x):
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        out = self.conv2(F.relu(self.bn2(out)))
        out += self.shortcut(x)
        return out


class BiasedWideResNet(nn.Module):
    def __init__(self, depth, wide, classes=10):
        super().__init__()
        n, sizes = (depth - 4) // 6, [16, 16 * wide, 32 * wide, 64 * wide]
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=True)
        for stage in (1, 2, 3):
            first = _Biased(sizes[stage - 1], sizes[stage], 1 if stage == 1 else 2)
            rest = [_Biased(sizes[stage], sizes[stage], 1) for _ in range(n - 1)]
            self.add_module(f"layer{stage}", nn.Sequential(first, *rest))
        self.bn1 = nn.BatchNorm2d(sizes[3], momentum=0.9)
        self.linear = nn.Linear(sizes[3], classes)

    def forward(self, x):
        out = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        out = F.relu(self.bn1(out))
        out = F.avg_pool2d(out, out.shape[3])
        return self.linear(out.view(out.size(0), -1))


VGG = {
    "cifar-vgg11": [64, "M", 128, "M", 256, 256, "M", 512, 512, "M", 512, 512, "M"],
    "small": [8, "M", 16, 16, "M", 16, "M", 16, "M", 16, "M"],
    "a last layer of 4x4": [8, "M", 8, "M", 16, "M"],
    "no last pool": [8, "M", 8, 16],
}  # fmt: skip


class KuangliuVgg(nn.Module):
    def __init__(self, cfg, classes=10, *, norm=True):
        super().__init__()
        layers, inside = [], 3
        for x in cfg:
            if x == "M":
                layers += [nn.MaxPool2d(kernel_size=2, stride=2)]
            else:
                layers += [nn.Conv2d(inside, x, kernel_size=3, padding=1)]
                layers += [nn.BatchNorm2d(x)] if norm else []
                layers += [nn.ReLU(inplace=True)]
                inside = x
        layers += [nn.AvgPool2d(kernel_size=1, stride=1)]
        self.features = nn.Sequential(*layers)
        side = 32 // 2 ** cfg.count("M")
        self.classifier = nn.Linear(inside * side * side, classes)

    def forward(self, x):
        out = self.features(x)
        return self.classifier(out.view(out.size(0), -1))


class _KuangliuBlock(nn.Module):
    def __init__(self, inside, planes, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, planes, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.conv2 = nn.Conv2d(planes, planes, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(planes)
        self.shortcut = nn.Sequential()
        if stride != 1 or inside != planes:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inside, planes, 1, stride, bias=False), nn.BatchNorm2d(planes)
            )

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class KuangliuResNet(nn.Module):
    def __init__(self, depths, classes=10, width=64):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inside, stages = width, []
        for stage, depth in enumerate(depths):
            blocks = []
            for number in range(depth):
                stride = 2 if stage > 0 and number == 0 else 1
                blocks.append(_KuangliuBlock(inside, width << stage, stride))
                inside = width << stage
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(inside, classes)

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.layer4(self.layer3(self.layer2(self.layer1(out))))
        out = F.avg_pool2d(out, 4)
        return self.linear(out.view(out.size(0), -1))


class _TimmBlock(nn.Module):
    """timm's vision_transformer.Block, with its attention written out."""

    def __init__(self, width, heads, hidden):
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width, eps=1e-6)
        self.attn = nn.ModuleDict({"qkv": nn.Linear(width, 3 * width),
                                   "proj": nn.Linear(width, width)})  # fmt: skip
        self.norm2 = nn.LayerNorm(width, eps=1e-6)
        self.mlp = nn.ModuleDict({"fc1": nn.Linear(width, hidden), "fc2": nn.Linear(hidden, width)})

    def forward(self, x):
        n, tokens, width = x.shape
        qkv = self.attn["qkv"](self.norm1(x)).reshape(n, tokens, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-2, -1) / (width // self.heads) ** 0.5).softmax(dim=-1)
        x = x + self.attn["proj"]((weights @ v).transpose(1, 2).reshape(n, tokens, width))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class TimmVit(nn.Module):
    def __init__(self, *, side, patch, width, heads, depth, classes):
        super().__init__()
        self.cls_token = nn.Parameter(torch.randn(1, 1, width) / 50)
        self.pos_embed = nn.Parameter(torch.randn(1, (side // patch) ** 2 + 1, width) / 50)
        self.patch_embed = nn.ModuleDict({"proj": nn.Conv2d(3, width, patch, patch)})
        blocks = [_TimmBlock(width, heads, 4 * width) for _ in range(depth)]
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head = nn.Linear(width, classes)

    def forward(self, x):
        x = self.patch_embed["proj"](x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], dim=1) + self.pos_embed
        return self.head(self.norm(self.blocks(x))[:, 0])
