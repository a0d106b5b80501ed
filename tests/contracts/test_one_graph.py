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

def check(case, visible_blocks, hidden_shares):
    encoder, images = build(case).train(), images_for(case)
    encoder.see_visible_only(visible_blocks)
    target = PixelTarget().build(mean=(0.0,) * encoder.in_channels, std=(1.0,) * encoder.in_channels)
    model = SimMIM(encoder=encoder, head=LinearHeadConfig(), target=target)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    cells = [side // encoder.stride for side in case[2]]
    for share in hidden_shares:
        generator = torch.Generator().manual_seed(int(share * 100))
        mask = torch.rand(2, *cells, generator=generator) < share
        mask[:, 0, 0], mask[:, -1, -1] = False, True
        for axis in (1, 2):
            mask = mask.repeat_interleave(encoder.stride // encoder.patch_size, dim=axis)
        losses = []
        for forward in (model, compiled):
            torch.manual_seed(0)  # drop path draws
            losses.append(forward(images, mask, None, model.arrange(mask)).loss)
        assert torch.equal(*losses), (case[0], losses)

for case in encoder_cases():
    if case[0] in KINDS:
        check(case, 0, [0.6])
        if case[0] in ("beit", "swin"):  # one of each way through the code
            check(case, len(build(case).blocks) - 1, [0.3, 0.7])  # with other numbers of visible tokens, and of groups
        print(case[0])
"""


def test_every_forward_pass_is_one_graph() -> None:
    tests = Path(__file__).parent.parent
    command = [sys.executable, "-W", "error::UserWarning", "-c", f"KINDS = {KINDS}\n{_PROGRAM}"]
    done = subprocess.run(command, cwd=tests, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == KINDS
