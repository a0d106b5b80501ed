"""A break of the compiler's graph would cost a GPU more than the compiler saves: no encoder has one."""

import subprocess
import sys
from pathlib import Path

KINDS = ["vit with registers", "beit", "swin", "swinv2", "swinv2 giant", "timm hiera"]
"""One case of each way through the code."""

# In a process without the checks of shapes, which are Python of their own and no part of the network.
_PROGRAM = """
import torch
from reference.parts import build, encoder_cases, images_for
from simmim.heads import LinearHeadConfig
from simmim.model import SimMIM
from simmim.targets import PixelTarget

for case in encoder_cases():
    if case[0] not in KINDS:
        continue
    encoder, images = build(case).train(), images_for(case)
    target = PixelTarget().build(mean=(0.0,) * encoder.in_channels, std=(1.0,) * encoder.in_channels)
    model = SimMIM(encoder=encoder, head=LinearHeadConfig(), target=target)
    mask = torch.zeros(2, *(side // encoder.patch_size for side in case[2]), dtype=torch.bool)
    mask[:, 1:] = True
    losses = []
    torch._dynamo.reset()
    for forward in (model, torch.compile(model, fullgraph=True, backend="eager")):
        torch.manual_seed(0)  # drop path draws
        losses.append(forward(images, mask).loss)
    assert torch.equal(*losses), (case[0], losses)
    print(case[0])
"""


def test_every_forward_pass_is_one_graph() -> None:
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-W", "error::UserWarning", "-c", f"KINDS = {KINDS}\n{_PROGRAM}"]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == KINDS
