"""What is wrong with the images themselves, whatever the recipe."""

import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

from simmim.data import DataConfig, Source, splits_of
from simmim.tasks.doctor.copies import exact_copies, near_copies
from simmim.tasks.doctor.folder import bands_of, pictures_left_out
from simmim.tasks.doctor.problem import BREAKS, COSTS, NOTE, SPOILS, Problem
from simmim.tasks.doctor.sample import Look, Sampled

_CONSTANT = 1 / 255
_LONG = 4.0  # long side by short side
_HUGE = 12_000_000  # pixels
_DIM = 0.25  # of the range of 16 bits
_FRAMED = 0.1  # share of the picture that is border
_SHOWN = 3
_NAMES_READ = 3000  # in their order, so that files of an image stand together

_Sign = tuple[str, int, Callable[[Look], bool], str, str]

_SIGNS: tuple[_Sign, ...] = (
    (
        "constant",
        SPOILS,
        lambda look: look.spread < _CONSTANT,
        "show one value everywhere, so there is nothing to predict",
        "remove them, or leave them out of a list file",
    ),
    (
        "border",
        SPOILS,
        lambda look: look.border >= _FRAMED and look.spread >= _CONSTANT,
        "have black borders of a tenth of the picture or more, which is predicted for nothing",
        "set data.invalid=black, or the value that marks what is empty, so that it is neither hidden nor scored; or crop them",
    ),
    (
        "low range",
        SPOILS,
        lambda look: look.depth == "uint16" and look.range_used < _DIM and look.spread > 0,
        "use less than a quarter of the range of 16 bits, as cameras of 10 to 14 bits do",
        "leave data.mean and data.std to be measured, and never take those of ImageNet",
    ),
    (
        "aspect",
        COSTS,
        lambda look: max(look.height, look.width) > _LONG * min(look.height, look.width),
        "are more than four times as long as they are wide: a crop shows a small part of them",
        "cut them into pieces, or set an oblong data.image_size",
    ),
    (
        "huge",
        COSTS,
        lambda look: look.height * look.width > _HUGE,
        "have more than 12 million pixels, and decoding them takes longer than training on them",
        "store them smaller, with a short side of 512 px or so, or cut them into tiles",
    ),
    (
        "transparent",
        NOTE,
        lambda look: look.alpha,
        "have transparency, which is dropped; what lies behind it may be black",
        "nothing to do if it is not used; or set data.invalid=alpha, so that what is transparent does not count",
    ),
    (
        "cmyk",
        NOTE,
        lambda look: look.mode == "CMYK",
        "are written for print (CMYK); the change to RGB is rough without their colour profile",
        "convert them with their profile if colours matter",
    ),
    (
        "pages",
        NOTE,
        lambda look: look.pages > 1,
        "have further pages, of which only the first counts",
        "set data.pages=each if every page is an image, data.pages=channels if together they are one",
    ),
    (
        "misnamed",
        NOTE,
        lambda look: not look.named_right,
        "have a name that says another format than they are; simmim goes by the content, other tools may not",
        "rename them",
    ),
)


def problems_of_images(source: Source, sampled: Sampled, *, data: DataConfig) -> list[Problem]:
    """Everything the index, the folder and the sample show."""
    looks = sampled.looks
    found = [*_unreadable(source, sampled, allowed=data.bad_share), *_of_folder(data.source or "", data.split)]
    for name, weight, applies, said, cure in _SIGNS:
        if hit := [look.name for look in looks if applies(look)]:
            found.append(Problem(name, weight, f"{_share(len(hit), sampled)} {said}", cure, tuple(hit[:_SHOWN])))
    return [*found, *_split_in_bands(source, sampled, data), *_mixed(source, sampled, data), *_copied(sampled)]


def _share(count: int, sampled: Sampled) -> str:
    return f"{count} of {sampled.asked} images looked at ({count / max(sampled.asked, 1):.1%})"


_REASONS = (
    ("empty", "is empty"),
    ("broken link", "is a broken link"),
    ("not an image", "is not an image"),
    ("not finite", "not finite"),
    ("no access", "cannot be opened"),
    ("missing package", "needs the package"),
)


def share_stepped_over(source: Source, sampled: Sampled, *, channels: int | None = None) -> float:
    """Share of all files that a run steps over: those that cannot be read, and those that do not go with its channels.

    What the index knows is counted over all files, what decoding shows over the sample.
    """
    bad = len(sampled.failures.keys() - source.problems.keys())
    if channels is not None:
        bad += sum(look.colours != channels and not {look.colours, channels} <= {1, 3} for look in sampled.looks)
    known = len(source.problems) / max(source.listed, 1)
    return known + (1 - known) * bad / max(sampled.asked, 1)


def share_to_allow(share: float) -> float:
    """The data.bad_share with which a run of such a set goes on, with some room for what the sample did not show."""
    return min(1.0, math.ceil(share * 150) / 100)


def _unreadable(source: Source, sampled: Sampled, *, allowed: float) -> list[Problem]:
    groups: dict[str, list[str]] = {}
    reasons: dict[str, str] = {}
    for path, reason in {**source.problems, **sampled.failures}.items():
        kind = next((kind for kind, words in _REASONS if words in reason), "damaged")
        groups.setdefault(kind, []).append(path)
        reasons.setdefault(kind, reason)
    known = {kind: sum(path in source.problems for path in paths) for kind, paths in groups.items()}
    found, together = list[Problem](), share_stepped_over(source, sampled)
    breaks = together > allowed
    for kind, paths in groups.items():
        seen = len(paths) - known[kind]
        # What the index knows is counted over all files, what decoding shows over the sample.
        share = max(known[kind] / max(source.listed, 1), seen / max(sampled.asked, 1))
        of = f"of {source.listed} files" if known[kind] else f"of {sampled.asked} files looked at"
        cure = "remove them or copy them again; a run steps over them" + (
            f", up to data.bad_share={allowed:g}; of all files {together:.1%} are bad, so set "
            f"data.bad_share={share_to_allow(together):g}"
            if breaks
            else ""
        )
        if kind == "not finite":
            cure = "set data.invalid=nan if NaN marks what is empty; otherwise " + cure
        weight = BREAKS if breaks else COSTS
        said = f"{len(paths)} {of} ({share:.1%}) cannot be read; the first {reasons[kind]}"
        found.append(Problem(kind, weight, said, cure, tuple(paths[:_SHOWN])))
    return found


def _of_folder(data: str, split: str | None) -> list[Problem]:
    root, found = Path(data).expanduser(), list[Problem]()
    if not root.is_dir():
        return []
    if left_out := pictures_left_out(root):
        counts = ", ".join(f"{count} x {suffix}" for suffix, count in left_out.items())
        cure = "convert them to PNG, TIFF or JPEG if they belong to the set"
        found.append(Problem("left out", COSTS, f"pictures of kinds that are not opened: {counts}", cure))
    if split is None and (splits := splits_of(data)):
        said = f"the folder is divided into {', '.join(splits)}, and all of it would be trained on"
        found.append(Problem("splits", SPOILS, said, "set data.split=train, so that what judges is never seen"))
    return found


def _split_in_bands(source: Source, sampled: Sampled, data: DataConfig) -> list[Problem]:
    if data.bands or any(look.colours > 1 for look in sampled.looks):
        return []
    names = [source.name(index) for index in range(min(len(source), _NAMES_READ))]
    if not (bands := bands_of(names)):
        return []
    said = (
        f"the files look like bands, {len(bands)} of each image: {', '.join(bands)}; each would be an image of its own"
    )
    cure = f"set data.bands=[{','.join(bands)}], so that together they are one image of {len(bands)} channels"
    return [Problem("bands", SPOILS, said, cure, tuple(names[:_SHOWN]))]


def _mixed(source: Source, sampled: Sampled, data: DataConfig) -> list[Problem]:
    looks = sampled.looks
    channels, depths = Counter(look.colours for look in looks), Counter(look.depth for look in looks)
    found: list[Problem] = []
    if len(channels) > 1:
        said = "the images differ in their channels: " + _counted(channels)
        mild = set(channels) == {1, 3}
        cure = "grey is repeated to 3 channels; set data.channels=1 to train on grey alone"
        often = channels.most_common(1)[0][0]
        over = share_stepped_over(source, sampled, channels=often)
        words = f"data.channels={often}" + (f" data.bad_share={share_to_allow(over):g}" * (over > data.bad_share))
        hard = f"part the folder; or set {words}, and the others are stepped over"
        rare = [next(look.name for look in looks if look.colours == count) for count in channels]
        found.append(Problem("channels", NOTE if mild else BREAKS, said, cure if mild else hard, tuple(rare)))
    if len(depths) > 1:
        said = f"the images differ in their number type: {_counted(depths)}; the same scene may have other values"
        rare = [next(look.name for look in looks if look.depth == depth) for depth in depths]
        found.append(Problem("depth", SPOILS, said, "bring all files to one type and one scale", tuple(rare)))
    return found


def _counted(counter: "Counter[int] | Counter[str]") -> str:
    return ", ".join(f"{key} ({count})" for key, count in counter.most_common())


def _copied(sampled: Sampled) -> list[Problem]:
    found: list[Problem] = []
    for name, pairs, what in (
        ("copies", exact_copies(sampled.looks), "have the same pixels as another"),
        ("near copies", near_copies(sampled.looks), "look like another almost to the pixel, as frames of a video do"),
    ):
        if pairs:
            said = f"{_share(len(pairs), sampled)} {what}; over the whole set there may be more"
            cure = "keep one of each in a list file; copies between training and judging make results look better"
            found.append(Problem(name, COSTS, said, cure, pairs[0]))
    return found
