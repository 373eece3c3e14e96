"""What training code says of itself, seen without importing it."""

import pytest

from hpsearch.declaration import declared_epochs, declared_optimizer, is_function, is_task
from hpsearch.objective import ObjectiveAddress

HEAD = "raise SystemExit('imported!')\nimport hpsearch as hp\nfrom hpsearch import TrainingTask\n"


@pytest.fixture
def written(tmp_path):
    def written(body, name="Task"):
        (tmp_path / "task.py").write_text(HEAD + body)
        return ObjectiveAddress("task.py", name, tmp_path)

    return written


@pytest.mark.parametrize(
    ("body", "epochs"),
    [
        ("class Task(hp.TrainingTask):\n    epochs = 7\n", 7),
        ("class Task(TrainingTask):\n    epochs: int = 7\n", 7),
        ("class Task(hp.TrainingTask):\n    epochs = 7\n    epochs = 8\n", 8),
        ("class Task(hp.TrainingTask):\n    optimizer = 'adam'\n", 20),  # the default
        ("class Base(hp.TrainingTask):\n    epochs = 7\nclass Task(Base):\n    lr = 0.1\n", 7),
        ("class Base(hp.TrainingTask):\n    lr = 0.1\nclass Task(Base): ...\n", 20),
        ("EPOCHS = 7\nclass Task(hp.TrainingTask):\n    epochs = EPOCHS\n", None),
        ("class Task(hp.TrainingTask):\n    epochs = 5 + 2\n", None),
        ("class Task(hp.TrainingTask):\n    epochs = 0\n", None),
        ("class Task(hp.TrainingTask):\n    epochs = True\n", None),
        ("class Task(hp.TrainingTask):\n    def __init__(self):\n        self.epochs = 3\n", None),
        ("class Task(hp.TrainingTask):\n    def data(self):\n        return self.epochs\n", 20),
        ("class Task(Other):\n    lr = 0.1\n", None),
        ("class Task(Task):\n    lr = 0.1\n", None),
        ("class Task(Mixin, hp.TrainingTask):\n    lr = 0.1\n", None),
        ("def Task(run):\n    epochs = 7\n", None),
        ("from elsewhere import Task\n", None),
    ],
)
def test_the_epochs_of_a_task(written, body, epochs):
    assert declared_epochs(written(body)) == epochs


def test_the_optimizer_of_a_task(written):
    assert declared_optimizer(written("class Task(hp.TrainingTask):\n    optimizer = 'adagrad'\n")) == "adagrad"
    assert declared_optimizer(written("class Task(hp.TrainingTask): ...\n")) == "momentum"
    assert declared_optimizer(written("class Task(hp.TrainingTask):\n    optimizer = 3\n")) is None


@pytest.mark.parametrize(
    ("made", "optimizer"),
    [
        ("torch.optim.SGD(parameters, lr=run['lr'])", "sgd"),
        ("SGD(parameters, lr=run['lr'], momentum=0.9)", "momentum"),
        ("optim.SGD(parameters, lr=0.1, momentum=run['momentum'], nesterov=True)", "nesterov"),
        ("torch.optim.AdamW(parameters)", "adamw"),
        ("torch.optim.SGD(parameters) if run['sgd'] else torch.optim.Adam(parameters)", None),
        ("torch.optim.LBFGS(parameters)", None),
    ],
)
def test_the_only_optimizer_that_a_functions_file_makes(written, made, optimizer):
    assert declared_optimizer(written(f"def train(run):\n    optimizer = {made}\n", "train")) == optimizer


def test_a_function_is_told_from_a_class(written):
    assert is_function(written("def train(run): ...\n", "train"))
    assert not is_function(written("class Task(hp.TrainingTask): ...\n"))
    assert not is_function(written("train = lambda run: 0.0\n", "train"))


def test_what_is_not_there_says_nothing(tmp_path):
    gone = ObjectiveAddress("gone.py", "Task", tmp_path)
    assert (declared_epochs(gone), declared_optimizer(gone), is_function(gone)) == (None, None, False)
    assert not is_task(gone)


@pytest.mark.parametrize(
    ("body", "is_one"),
    [
        ("class Task(hp.TrainingTask): ...\n", True),
        ("class Task(Other): ...\n", True),
        ("def Task(run): ...\n", False),
        ("async def Task(run): ...\n", False),
        ("def Task(run): ...\nclass Task: ...\n", True),
        ("class Task: ...\ndef Task(run): ...\n", False),
        ("class Other: ...\n", False),
        ("Task = object\n", False),
        ("from sister import Task\n", True),
        ("from sister import Digits as Task\n", True),
        ("from sister import train as Task\n", False),
        ("from sister import through as Task\n", False),
        ("from .sister import Task\n", True),
        ("from nowhere import Task\n", False),
        ("import sister as Task\n", False),
        ("class Task: ...\nfrom sister import train as Task\n", False),
    ],
)
def test_a_task_is_a_class_here_or_where_it_is_imported_from(written, tmp_path, body, is_one):
    (tmp_path / "sister.py").write_text(
        "raise SystemExit\nclass Task: ...\nclass Digits: ...\ndef train(run): ...\nthrough = Task\n"
    )
    assert is_task(written(body)) == is_one


def test_a_task_of_a_file_in_a_subfolder_is_looked_for_beside_it_and_beside_the_study(tmp_path):
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "task.py").write_text("from near import Near\nfrom far import Far\n")
    (tmp_path / "tasks" / "near.py").write_text("class Near: ...\n")
    (tmp_path / "far.py").write_text("class Far: ...\n")
    assert is_task(ObjectiveAddress("tasks/task.py", "Near", tmp_path))
    assert is_task(ObjectiveAddress("tasks/task.py", "Far", tmp_path))
    assert is_task(ObjectiveAddress("tasks.task", "Near", tmp_path))
