"""Convolutional networks on images and series."""

from corpus_data import Small, images, series
from torch import nn
from torch.nn import functional as F


class BatchNormCNN(Small):
    """Running statistics a lane, and dropout of whole channels."""

    def model(self, params):
        return nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Dropout2d(params["dropout"]),
            nn.Conv2d(4, 6, 3),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(6, 4),
        )

    def data(self):
        return images()


class Block(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        nn.init.zeros_(self.bn2.weight)
        self.shortcut = nn.Sequential()
        if stride > 1:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return F.relu_(out)


class Residual(Small):
    """A small ResNet: the sum and the ReLU are in place."""

    def model(self, params):
        return nn.Sequential(Block(1, 4, 1), Block(4, 6, 2), nn.AvgPool2d(4), nn.Flatten(), nn.Linear(6, 4))

    def data(self):
        return images()


class Series(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.down = nn.Conv1d(3, 6, 3, padding=1, groups=3), nn.Conv1d(6, 6, 2, stride=2)
        self.up = nn.ConvTranspose1d(6, 4, 2, stride=2)
        self.norm = nn.InstanceNorm1d(4, affine=True)

    def forward(self, x):
        x = F.gelu(self.conv(x.transpose(1, 2)))
        return self.norm(self.up(self.down(x))).amax(2)


class Conv1d(Small):
    """Grouped, strided and transposed convolutions of series, and an InstanceNorm."""

    def model(self, params):
        return Series()

    def data(self):
        return series()
