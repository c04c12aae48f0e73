"""The tables of places where a process dies by kill -9."""

import random

# Changes to the output folder at which `predict` dies by kill -9, and how often it has made them before.
PREDICT_DIES: tuple[tuple[str, int], ...] = (
    ("rename phantom_000.nii.gz", 1),  # the label map is whole under its temporary name
    ("remove .phantom_000.nii.gz", 1),  # it has its name, and the record is not done
    ("rename report.html", 1),
    ("open .phantom_000.json", 1),  # nothing is there
    ("rename phantom_000.json", 1),  # the record that claims the case
    ("open .phantom_000.nii.gz", 1),
    ("rename details/previews/phantom_000.png", 1),
    ("rename phantom_000.json", 2),  # the record of a case that is done
    ("remove .phantom_000.json", 2),
    ("remove .", 5),
    ("rename phantom_001.nii.gz", 1),  # the second case
    ("open .unetfamily.lock", 1),  # the tables
    ("rename volumes.csv", 1),
    ("rename run.json", 1),
    *(("", at) for at in random.Random(0).sample(range(1, 40), 4)),  # and at random
)
SPLIT_DIES = (("mkdir .phantom_000.", 1), ("rename phantom_000", 2))  # with --split: the folder of masks
SCORES_DIE = (("open details/scores", 1), ("rename details/scores", 1))  # with --save-scores
TRAIN_DIES = (
    ("rename cache/", 2),  # cases are preprocessed
    ("rename models/checkpoint.pt", 1),  # no epoch is whole
    ("rename models/model.pt", 1),  # a checkpoint, and no weights
    ("rename models/checkpoint.pt", 2),
    ("rename logs/history.csv", 3),  # of the second epoch: its steps are done, and no checkpoint
    ("rename logs/history.csv", 4),  # a checkpoint of the last epoch, and no validation of it in the history
    ("rename eval/scores.csv", 1),  # the training is whole, but for its figures
)
