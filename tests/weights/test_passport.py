import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from timm.scheduler import CosineLRScheduler

from reference import official
from simmim.tasks.export import export_weights
from simmim.tasks.load import encoder_path, load, load_encoder, load_with_settings
from simmim.tasks.passport import import_weights
from simmim.weights.adapt import Wanted
from simmim.weights.passport import read_passport
from simmim.weights.pickles import read_foreign
from weights.foreign import huggingface_model, official_case, official_config

KINDS = ["swin", "swinv2", "vit"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("config", [True, False])
def test_an_official_file_says_what_the_official_code_says(kind: str, config: bool, tmp_path: Path) -> None:
    case = official_case(kind, tmp_path, config=config)
    model = load(case.path)
    with torch.no_grad():
        features = model.encoder.encode(model.hide(model.encoder.embed(case.images), case.mask))
        said = model(case.images, case.mask)
    assert torch.allclose(features, case.features, atol=1e-5)
    assert torch.allclose(said.prediction, case.prediction, atol=1e-5)
    assert torch.allclose(said.loss, case.loss, atol=1e-5)


def _otherwise(state: dict[str, torch.Tensor], option: str) -> dict[str, torch.Tensor]:
    """The file of a ViT for which the official configuration says another thing than the published one."""
    shared = "encoder.rel_pos_bias.relative_position_"
    if option == "USE_MEAN_POOLING":
        return {name.replace("encoder.norm.", "encoder.fc_norm."): tensor for name, tensor in state.items()}
    if option == "USE_APE":
        return {**state, "encoder.pos_embed": torch.randn(1, 17, 16)}
    table, index = state[f"{shared}bias_table"], state[f"{shared}index"]
    own: dict[str, torch.Tensor] = {}
    for start in ("encoder.blocks.0.attn.relative_position_", "encoder.blocks.1.attn.relative_position_"):
        own |= {f"{start}bias_table": torch.randn_like(table), f"{start}index": index}
    return {**{name: tensor for name, tensor in state.items() if not name.startswith(shared)}, **own}


@pytest.mark.parametrize("option", ["USE_MEAN_POOLING", "USE_APE", "USE_RPB"])
def test_an_official_vit_may_be_configured_otherwise(option: str, tmp_path: Path) -> None:
    case = official_case("vit", tmp_path)
    state = _otherwise(case.state, option)
    torch.save({"model": state}, tmp_path / "other.pth")
    with torch.no_grad():
        features = official.vit_features(state, case.images, case.mask, normed=option != "USE_MEAN_POOLING")
        assert not torch.allclose(features, case.features, atol=1e-2)
        prediction = official.decode(state, features)
        loss = official.loss(case.images, prediction, case.mask)
        import_weights(tmp_path / "other.pth", out=tmp_path / "run")
        export_weights(tmp_path / "run", to="official", out=tmp_path / "out")
        for path in (tmp_path / "other.pth", tmp_path / "run", tmp_path / "out" / "checkpoint.pth"):
            model = load(path)
            said = model(case.images, case.mask)
            assert torch.allclose(model.features(case.images, case.mask), features, atol=1e-5)
            assert torch.allclose(said.prediction, prediction, atol=1e-5)
            assert torch.allclose(said.loss, loss, atol=1e-5)
    written = read_foreign(tmp_path / "out" / "checkpoint.pth")
    assert written.tensors.keys() == state.keys()
    assert all(torch.equal(written.tensors[name], state[name]) for name in state)
    published = {"USE_APE": False, "USE_RPB": False, "USE_SHARED_RPB": True, "USE_MEAN_POOLING": False}
    expected = published | {option: True} | ({"USE_SHARED_RPB": False} if option == "USE_RPB" else {})
    assert {word: written.settings["MODEL"]["VIT"][word] for word in published} == expected


def test_positions_that_would_be_lost_are_said(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    torch.save({"model": {**case.state, "encoder.absolute_pos_embed": torch.randn(1, 256, 8)}}, tmp_path / "ape.pth")
    with pytest.raises(ValueError, match=r"its encoder adds encoder.absolute_pos_embed to the tokens and the one here"):
        load(tmp_path / "ape.pth")
    assert read_passport(tmp_path / "ape.pth", least=0.9).match.count("left over") == 1


def test_what_the_configuration_says_is_not_called_a_guess(tmp_path: Path) -> None:
    """microsoft/SimMIM has no word for the target, which is the pixels."""
    config = official_config("swin", 64, 0)
    config.defrost()
    del config.MODEL["SIMMIM"]
    torch.save({"model": official_case("swin", tmp_path).state, "config": config}, tmp_path / "simmim.pth")
    assert read_passport(tmp_path / "simmim.pth").notes == ()


def test_the_pickled_configuration_is_heard(tmp_path: Path) -> None:
    loaded = load_with_settings(official_case("swinv2", tmp_path).path)
    assert loaded.config.target.kind == "local_pixels"  # pyright: ignore[reportAttributeAccessIssue]
    assert (loaded.config.masking.mask_patch, loaded.config.masking.ratio) == (16, 0.5)  # pyright: ignore


@pytest.mark.parametrize("kind", KINDS)
def test_a_hugging_face_folder_says_what_transformers_says(kind: str, tmp_path: Path) -> None:
    theirs: Any = huggingface_model(kind)
    theirs.save_pretrained(tmp_path / "hf")
    model = load(tmp_path / "hf")
    images = torch.randn(2, 3, 32, 32)
    mask = torch.rand(2, *([32 // model.encoder.patch_size] * 2)) < 0.6
    with torch.no_grad():
        wanted, said = theirs(images, bool_masked_pos=mask.flatten(1)), model(images, mask)
    assert torch.allclose(said.prediction, wanted.reconstruction, atol=1e-5)
    assert torch.allclose(said.loss, wanted.loss, atol=1e-5)


def test_an_old_name_of_the_position_network_is_known(tmp_path: Path) -> None:
    case = official_case("swinv2", tmp_path)
    old = {name.replace("cpb_mlp", "rpe_mlp"): tensor for name, tensor in case.state.items()}
    torch.save({"model": old}, tmp_path / "old.pth")
    assert read_passport(tmp_path / "old.pth").match.share == 1


@pytest.mark.parametrize("kind", ["swin", "vit"])
def test_a_fine_tuned_file_keeps_its_classifier(kind: str, tmp_path: Path) -> None:
    """Official fine-tuning: no prefix, a bias for every block of the ViT, its norm behind the pooling."""
    case = official_case(kind, tmp_path)
    state = {name.removeprefix("encoder."): t for name, t in case.state.items() if not name.startswith("decoder")}
    del state["mask_token"]
    if kind == "vit":
        table = state.pop("rel_pos_bias.relative_position_bias_table")
        del state["rel_pos_bias.relative_position_index"]
        state |= {f"blocks.{block}.attn.relative_position_bias_table": table for block in (0, 1)}
        state |= {f"fc_norm.{word}": state.pop(f"norm.{word}") for word in ("weight", "bias")}
    state |= {"head.weight": torch.randn(5, state["norm.weight" if kind == "swin" else "fc_norm.weight"].numel())}
    state["head.bias"] = torch.zeros(5)
    torch.save({"model": state}, tmp_path / "tuned.pth")
    done = import_weights(tmp_path / "tuned.pth", out=tmp_path / "out")
    assert (done.share, done.pretraining) == (1.0, False)
    nothing = torch.zeros(2, *case.mask.shape[1:], dtype=torch.bool)
    pooled = _official_features(kind, case.state, case.images, nothing)
    logits = load_encoder(tmp_path / "out" / "classifier.safetensors")(case.images)
    assert torch.allclose(logits, pooled @ state["head.weight"].T, atol=1e-4)


def _official_features(kind: str, state: Any, images: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Pooled; the fine-tuned ViT takes the mean before its norm."""
    if kind == "swin":
        return official.swin_features(state, images, mask).mean(dim=(2, 3))
    pooled = official.vit_features(state, images, mask, normed=False).mean(dim=(2, 3))
    return F.layer_norm(pooled, (16,), state["encoder.norm.weight"], state["encoder.norm.bias"], 1e-6)


def test_openmmlab_names_and_its_order_of_merging(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    state = {"backbone.mask_token": case.state["encoder.mask_token"]}
    for name, tensor in case.state.items():
        bare = (
            name.removeprefix("encoder.")
            .replace("layers.", "stages.")
            .replace("patch_embed.proj", "patch_embed.projection")
        )
        bare = (
            bare.replace("attn.", "attn.w_msa.").replace("mlp.fc1", "ffn.layers.0.0").replace("mlp.fc2", "ffn.layers.1")
        )
        if name.startswith("decoder"):
            state[f"neck.{name}"] = tensor
        elif "attn_mask" not in name and "mask_token" not in name:
            state["backbone." + ("norm3" + bare[4:] if bare.startswith("norm.") else bare)] = _unfolded(bare, tensor)
    torch.save({"state_dict": state, "meta": {"epoch": 1}}, tmp_path / "mm.pth")
    passport = read_passport(tmp_path / "mm.pth")
    assert (passport.layout, passport.match.share) == ("OpenMMLab", 1.0)
    with torch.no_grad():  # the size is guessed: its last map is one window
        said = load(tmp_path / "mm.pth")(case.images, case.mask)
    assert torch.allclose(said.prediction, case.prediction, atol=1e-5)


def _unfolded(name: str, tensor: torch.Tensor) -> torch.Tensor:
    """A merge for patches laid out by nn.Unfold, found by unfolding numbers and seeing where they went."""
    if "downsample" not in name:
        return tensor
    channels = tensor.shape[-1] // 4
    image = torch.arange(4.0 * channels).reshape(1, channels, 2, 2)
    unfolded = F.unfold(image, 2).flatten()
    sliced = torch.cat([image[0, :, row, column] for row, column in ((0, 0), (1, 0), (0, 1), (1, 1))])
    place = [int((sliced == number).nonzero()) for number in unfolded]
    return tensor[..., place]


def test_an_imported_folder_is_a_run(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    done = import_weights(case.path, out=tmp_path / "run")
    assert (done.family, done.image_size, done.window, done.share) == ("swin", (64, 64), 4, 1.0)
    assert done.counts == {"taken": 93, "derived": 8, "left over": 0, "missing": 0}
    again = load(tmp_path / "run")(case.images, case.mask)
    assert torch.allclose(again.prediction, case.prediction, atol=1e-5)
    encoder: Any = load_encoder(tmp_path / "run")
    assert torch.equal(encoder.patch_embed.proj.weight, case.state["encoder.patch_embed.proj.weight"])
    for read in (load, load_encoder):
        with pytest.raises(ValueError, match=r"there is no run .*; did you mean 'swin.pth'\?"):
            read(tmp_path / "swim.pth")
    with pytest.raises(ValueError, match="is not empty"):
        import_weights(case.path, out=tmp_path / "run")
    with pytest.raises(ValueError, match="is a run of simmim already"):
        import_weights(tmp_path / "run", out=tmp_path / "again")
    with pytest.raises(ValueError, match=r"is of another program; first: simmim import .*swin.pth --out DIR"):
        encoder_path(case.path)


def test_too_little_that_matches_is_refused_unless_asked_for(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    less = {name: tensor for name, tensor in case.state.items() if ".mlp." not in name}
    torch.save({"model": less}, tmp_path / "less.pth")
    with pytest.raises(
        ValueError, match=r"74% of the tensors match, and 95% are asked for. Missing: layers.0.blocks.0.mlp"
    ):
        read_passport(tmp_path / "less.pth")
    for name in ("one", "two"):
        done = import_weights(tmp_path / "less.pth", out=tmp_path / name, least=0.5)
    assert done.counts["missing"] == 24
    assert done.changes["layers.0.blocks.0.mlp.fc1.weight"] == "not in the file: it starts at random"
    encoders: Any = [load_encoder(tmp_path / name) for name in ("one", "two")]
    first, again = (encoder.layers[0].blocks[0] for encoder in encoders)
    assert torch.equal(first.attn.qkv.weight, case.state["encoder.layers.0.blocks.0.attn.qkv.weight"])
    assert torch.equal(first.mlp.fc1.weight, again.mlp.fc1.weight)
    assert 0.01 < float(first.mlp.fc1.weight.detach().std()) < 0.03  # as Swin is initialised


def test_what_a_file_is_not_is_said(tmp_path: Path) -> None:
    torch.save({"model": {"head.weight": torch.ones(2, 2), "head.bias": torch.ones(2)}}, tmp_path / "head.pth")
    with pytest.raises(ValueError, match="holds a head alone"):
        load(tmp_path / "head.pth")
    torch.save({"conv1.weight": torch.ones(2, 2), "layer1.0.conv1.weight": torch.ones(2)}, tmp_path / "resnet.pth")
    with pytest.raises(ValueError, match="is in no layout that is read here: its 2 tensors begin with conv1"):
        load(tmp_path / "resnet.pth")
    case = official_case("swin", tmp_path)
    bare = {name: tensor for name, tensor in case.state.items() if not name.startswith("decoder")}
    torch.save({"model": bare}, tmp_path / "bare.pth")
    with pytest.raises(ValueError, match="an encoder without mask token and head"):
        load(tmp_path / "bare.pth")
    assert load_encoder(tmp_path / "bare.pth") is not None


def test_another_size_window_and_channels(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    done = read_passport(case.path, wanted=Wanted(image_size=(96, 96), channels=5))
    assert (done.blueprint.window, done.blueprint.channels) == (6, 5)
    assert done.changes["layers.0.blocks.0.attn.relative_position_bias_table"] == "(49, 1) to (121, 1)"
    assert done.changes["window"] == "4 to 6 tokens a side"
    import_weights(case.path, out=tmp_path / "wide", wanted=Wanted(image_size=(64, 128), channels=1))
    model = load(tmp_path / "wide")
    said = model(torch.zeros(1, 1, 64, 128), torch.ones(1, 16, 32, dtype=torch.bool))
    assert said.prediction.shape == (1, 1, 64, 128)


def test_equal_channels_give_what_three_gave(tmp_path: Path) -> None:
    """One picture in every channel: the tokens of the adapted embedding are those of the old one."""
    case = official_case("vit", tmp_path)
    grey = case.images[:, :1]
    before = load_encoder(case.path).patch_embed(grey.expand(-1, 3, -1, -1))  # pyright: ignore
    import_weights(case.path, out=tmp_path / "one", wanted=Wanted(channels=1))
    assert torch.allclose(load_encoder(tmp_path / "one").patch_embed(grey), before, atol=1e-5)  # pyright: ignore


def test_swinv2_measures_a_new_window_in_the_old_one(tmp_path: Path) -> None:
    case = official_case("swinv2", tmp_path)
    done = read_passport(case.path, wanted=Wanted(image_size=(128, 128)))
    assert (done.blueprint.window, done.blueprint.pretrained_windows) == (8, (4, 4, 4))
    import_weights(case.path, out=tmp_path / "large", wanted=Wanted(image_size=(128, 128)))
    model: Any = load(tmp_path / "large")
    attention = model.encoder.backbone.layers[0].blocks[0].attn
    assert float(attention.relative_coords_table.max()) == pytest.approx(torch.log2(torch.tensor(1 + 8 * 7 / 3)) / 3)


def test_the_shared_bias_is_given_to_every_block(tmp_path: Path) -> None:
    case = official_case("vit", tmp_path)
    import_weights(case.path, out=tmp_path / "blocks", wanted=Wanted(per_block=True))
    with torch.no_grad():
        shared, own = load_encoder(case.path), load_encoder(tmp_path / "blocks")
        assert torch.allclose(shared.forward_features(case.images), own.forward_features(case.images), atol=1e-6)  # pyright: ignore
    with pytest.raises(ValueError, match="a swin has no shared position bias"):
        read_passport(official_case("swin", tmp_path).path, wanted=Wanted(per_block=True))


def _plain_vit(folder: Path, **shape: Any) -> Any:
    """A ViT of timm with wide weights; its state dict lies in folder/vit.pth."""
    torch.manual_seed(5)
    model = timm.create_model("vit_tiny_patch16_224", embed_dim=48, depth=2, num_heads=4, num_classes=0, **shape)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    torch.save(model.state_dict(), folder / "vit.pth")
    return model.eval()


def test_the_heads_of_a_bare_vit_are_guessed_or_said(tmp_path: Path) -> None:
    theirs, images = _plain_vit(tmp_path, img_size=64), torch.randn(2, 3, 64, 64)
    guessed = import_weights(tmp_path / "vit.pth", out=tmp_path / "guessed")
    assert "heads (1, as published for this width; simmim import --heads says another)" in " ".join(guessed.guessed)
    import_weights(tmp_path / "vit.pth", out=tmp_path / "said", wanted=Wanted(heads=4))
    wrong, right = (load_encoder(tmp_path / name).forward_features(images) for name in ("guessed", "said"))  # pyright: ignore
    assert torch.allclose(right, theirs.forward_features(images), atol=1e-5)
    assert not torch.allclose(wrong, right, atol=1e-2)
    with pytest.raises(ValueError, match="5 heads do not share 48 channels; allowed: 1, 2, 3, 4, 6"):
        read_passport(tmp_path / "vit.pth", wanted=Wanted(heads=5))
    with pytest.raises(ValueError, match=r"the tensors of a swin tell its heads: \(1, 2, 4\); leave --heads out"):
        read_passport(official_case("swin", tmp_path).path, wanted=Wanted(heads=5))


def test_the_name_of_a_timm_model_says_its_heads(tmp_path: Path) -> None:
    """A folder as timm's hub has it, with a ViT-H: 16 heads, of fewer channels than in most ViTs."""
    torch.manual_seed(6)
    shape = {"img_size": 28, "embed_dim": 160, "depth": 1, "num_classes": 0}
    theirs: Any = timm.create_model("vit_huge_patch14_224", **shape).eval()
    for parameter in theirs.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    (tmp_path / "hub").mkdir()
    save_file(theirs.state_dict(), tmp_path / "hub" / "model.safetensors")
    config = {"architecture": "vit_huge_patch14_224", "num_classes": 0, "pretrained_cfg": {"input_size": [3, 28, 28]}}
    (tmp_path / "hub" / "config.json").write_text(json.dumps(config))
    assert not any("heads" in note for note in read_passport(tmp_path / "hub").notes)
    images = torch.randn(2, 3, 28, 28)
    said = load_encoder(tmp_path / "hub").forward_features(images)  # pyright: ignore
    assert torch.allclose(said, theirs.forward_features(images), atol=1e-5)


def test_an_oblong_vit_needs_the_size_of_its_images(tmp_path: Path) -> None:
    theirs, images = _plain_vit(tmp_path, img_size=(64, 96)), torch.randn(2, 3, 64, 96)
    with pytest.raises(ValueError, match="not square; say the image size with --image-size"):
        read_passport(tmp_path / "vit.pth")
    import_weights(tmp_path / "vit.pth", out=tmp_path / "run", wanted=Wanted(image_size=(64, 96), heads=4))
    said = load_encoder(tmp_path / "run").forward_features(images)  # pyright: ignore
    assert torch.allclose(said, theirs.forward_features(images), atol=1e-5)


def test_a_swinv2_that_tells_nothing_is_told(tmp_path: Path) -> None:
    """Weights alone, without index tables and configuration."""
    case = official_case("swinv2", tmp_path)
    words = ("relative_position_index", "relative_coords_table", "attn_mask")
    torch.save(
        {"model": {name: t for name, t in case.state.items() if not name.endswith(words)}}, tmp_path / "bare.pth"
    )
    with pytest.raises(ValueError, match="say it with simmim import --window, and --image-size"):
        load(tmp_path / "bare.pth")
    done = import_weights(tmp_path / "bare.pth", out=tmp_path / "run", wanted=Wanted(image_size=(64, 64), window=4))
    assert not done.changes
    with torch.no_grad():
        assert torch.allclose(load(tmp_path / "run")(case.images, case.mask).loss, case.loss, atol=1e-5)


def test_half_precision_and_all_that_training_leaves_in_a_file(tmp_path: Path) -> None:
    case = official_case("swin", tmp_path)
    layer = torch.nn.Linear(2, 2)
    optimizer = torch.optim.AdamW(layer.parameters())
    layer(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    scheduler = CosineLRScheduler(optimizer, 10, warmup_t=1, t_in_epochs=False)
    beside = {"optimizer": optimizer.state_dict(), "lr_scheduler": scheduler.state_dict(), "epoch": 3}
    beside |= {
        "config": official_config("swin", 64, 0),
        "max_accuracy": torch.tensor(1.0),
        "amp": {"loss_scale": 2.0**16},
    }
    half = {name: t.bfloat16() if t.is_floating_point() else t for name, t in case.state.items()}
    torch.save({"model": half, **beside}, tmp_path / "half.pth")
    model = load(tmp_path / "half.pth")
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    with torch.no_grad():
        assert torch.allclose(model(case.images, case.mask).loss, case.loss, atol=1e-2)
