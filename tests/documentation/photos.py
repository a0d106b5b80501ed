"""The folders that the pages take for granted, made of the two photographs that come with scikit-learn."""

from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images

HEIGHT, WIDTH = 96, 128


def make_photos(folder: Path) -> None:
    """`photos`: 72 crops without labels, at two depths; `labelled` and `unseen`: a sub-folder for each photograph."""
    temple, flower = load_sample_images().images
    generator = np.random.default_rng(0)
    for number in range(92):
        image, name = ((temple, "temple"), (flower, "flower"))[number % 2]
        row, column = generator.integers(0, image.shape[0] - HEIGHT), generator.integers(0, image.shape[1] - WIDTH)
        crop = Image.fromarray(image[row : row + HEIGHT, column : column + WIDTH])
        unlabelled = "photos/2024/may" if number % 3 else "photos/2025"
        for place in (unlabelled, f"labelled/{name}") if number < 72 else (f"unseen/{name}",):
            (folder / place).mkdir(parents=True, exist_ok=True)
            crop.save(folder / place / f"{number:03d}.jpg", quality=90)
