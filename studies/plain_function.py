"""A training loop of your own, in plain PyTorch. What hpsearch needs is marked: two lines.

Data: breast cancer, 569 tumours with 30 measurements each, benign or malignant; it comes with scikit-learn.
"""

import torch
from sklearn.datasets import load_breast_cancer
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn


def train(run):
    # torch, numpy and random are seeded with run.seed before this line; the split is the same for every run.
    x, y = load_breast_cancer(return_X_y=True)
    x, x_val, y, y_val = train_test_split(x, y, test_size=0.3, random_state=0, stratify=y)
    scaler = StandardScaler().fit(x)
    x, x_val = (torch.tensor(scaler.transform(part), dtype=torch.float32) for part in (x, x_val))
    y, y_val = (torch.tensor(part) for part in (y, y_val))

    lr, weight_decay, hidden, activation = run["lr"], run["weight_decay"], run["hidden"], run["activation"]  # line 1
    model = nn.Sequential(
        nn.Linear(30, hidden), {"relu": nn.ReLU(), "tanh": nn.Tanh()}[activation], nn.Linear(hidden, 2)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, weight_decay=weight_decay)
    loss_of = nn.CrossEntropyLoss()

    best = float("inf")
    for epoch in range(20):
        for batch in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            loss_of(model(x[batch]), y[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            output = model(x_val)
        loss = loss_of(output, y_val).item()
        accuracy = (output.argmax(1) == y_val).double().mean().item()
        run.report(epoch, val_loss=loss, val_accuracy=accuracy)  # line 2
        best = min(best, loss)
    return best
