"""Identity of a baseline, training that is deterministic, and a cache that is right or not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from torch import nn

from core import baselines, training
from core.baselines import Baseline, cache_path, prepare_baseline
from core.config import BaselineConfig
from core.datasets import ImageDataset, Split, load_dataset
from core.errors import CheckpointError, ModelError, UnknownNameError, UsageError
from core.fit import require_fit
from core.measure import accuracy_and_loss
from core.models import Recipe, load_model, recipe_for
from core.training import mirrored, one_cycle, shifted, train

QUICK = {"model": "lenet-300-100", "dataset": "digits", "epochs": 2}


@pytest.fixture(scope="module")
def digits() -> ImageDataset:
    return load_dataset("digits")


@pytest.fixture
def prepare(digits: ImageDataset, tmp_path: Path) -> Callable[..., Baseline]:
    def call(**changes: object) -> Baseline:
        config = BaselineConfig.parse({**QUICK, **changes})
        return prepare_baseline(config, tmp_path / "cache", dataset=digits)

    return call


def weights(model: nn.Module) -> list[torch.Tensor]:
    return list(model.state_dict().values())


def equal(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(weights(a), weights(b), strict=True))


class TestConfig:
    def test_defaults_come_from_the_models_recipe(self) -> None:
        config = BaselineConfig(model="lenet-300-100", dataset="digits")
        assert config.recipe == recipe_for("lenet-300-100", "digits")
        assert BaselineConfig(model="my:net", dataset="digits").recipe == Recipe()

    def test_key_is_the_configuration(self) -> None:
        config = BaselineConfig.parse(QUICK)
        recipe = recipe_for("lenet-300-100", "digits")
        assert config.key == BaselineConfig.parse({**QUICK, "lr": recipe.lr}).key
        others = [
            {"lr": 0.05},
            {"seed": 1},
            {"epochs": 3},
            {"dataset": "fashion-mnist"},
            {"size": 32},
            {"augment": False},
        ]
        keys = {BaselineConfig.parse({**QUICK, **other}).key for other in others}
        assert len(keys | {config.key}) == len(others) + 1
        assert len(config.key) == 16

    def test_round_trip_through_json(self) -> None:
        config = BaselineConfig.parse({**QUICK, "checkpoint": "some/file.pt"})
        assert BaselineConfig.model_validate_json(config.model_dump_json()) == config

    def test_key_of_a_checkpoint_is_its_content(self, tmp_path: Path) -> None:
        for name, content in (("a", b"1"), ("b", b"1"), ("c", b"2")):
            (tmp_path / name).write_bytes(content)
        a, b, c = (BaselineConfig.parse({**QUICK, "checkpoint": tmp_path / name}).key for name in "abc")
        assert a == b != c
        assert BaselineConfig.parse({**QUICK, "epochs": 9, "checkpoint": tmp_path / "a"}).key == a
        with pytest.raises(CheckpointError, match="does not exist"):
            _ = BaselineConfig.parse({**QUICK, "checkpoint": tmp_path / "d"}).key

    @pytest.mark.parametrize(
        ("changes", "error", "message"),
        [
            ({"model": "lenet"}, UnknownNameError, "unknown model 'lenet'; did you mean 'lenet-300-100'"),
            ({"dataset": "digit"}, UnknownNameError, "unknown dataset 'digit'; did you mean 'digits'"),
            ({"epoch": 3}, UsageError, "unknown key 'epoch'; did you mean 'epochs'"),
            ({"epochs": 0}, UsageError, "epochs = 0: input should be greater than or equal to 1"),
            ({"lr": float("nan")}, UsageError, "lr = nan: input should be a finite number"),
            ({"batch_size": 1}, UsageError, "batch_size = 1: "),
            ({"model": 3}, UsageError, "model = 3: input should be a valid string"),
        ],
    )
    def test_refusals(self, changes: dict[str, object], error: type[Exception], message: str) -> None:
        with pytest.raises(error, match=f"^space.toml: {message}"):
            BaselineConfig.parse({**QUICK, **changes}, "space.toml: ")


class TestTraining:
    def test_learns_the_digits(self, prepare: Callable[..., Baseline]) -> None:
        assert prepare(epochs=10).accuracy > 94

    def test_is_deterministic_and_leaves_the_global_state_alone(self, digits: ImageDataset) -> None:
        recipe = Recipe(epochs=1, batch_size=64)
        models = []
        for noise in (1, 2):
            torch.manual_seed(noise)
            before = torch.get_rng_state()
            models.append(train(load_model("lenet-300-100"), digits, recipe, seed=5))
            assert torch.equal(torch.get_rng_state(), before)
        assert equal(*models)
        assert not equal(models[0], train(load_model("lenet-300-100"), digits, recipe, seed=6))
        assert not models[0].training

    def test_dropout_depends_on_the_seed_alone(self, digits: ImageDataset) -> None:
        def run() -> nn.Module:
            model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(784, 10))
            nn.init.zeros_(model[2].weight)  # type: ignore[arg-type]
            nn.init.zeros_(model[2].bias)  # type: ignore[arg-type]
            torch.rand(3)
            return train(model, digits, Recipe(epochs=1), seed=1)

        assert equal(run(), run())

    def test_batch_norms_gather_statistics(self, digits: ImageDataset) -> None:
        norm = nn.BatchNorm1d(784)
        train(nn.Sequential(nn.Flatten(), norm, nn.Linear(784, 10)), digits, Recipe(epochs=1, batch_size=100))
        assert norm.num_batches_tracked == 11

    def test_validation_and_test_are_never_seen(self, digits: ImageDataset) -> None:
        broken = Split(torch.full_like(digits.test.images, torch.nan), digits.test.labels)
        blind = ImageDataset(**{**vars(digits), "validation": broken, "test": broken})
        recipe = Recipe(epochs=1)
        assert equal(
            train(load_model("lenet-300-100"), blind, recipe), train(load_model("lenet-300-100"), digits, recipe)
        )

    def test_the_first_weights_depend_on_the_seed(self, prepare: Callable[..., Baseline]) -> None:
        hardly_trained = prepare(seed=3, lr=1e-30, epochs=1).model
        assert equal(hardly_trained, load_model("lenet-300-100", seed=3))

    def test_divergence_names_the_remedy(self, prepare: Callable[..., Baseline], tmp_path: Path) -> None:
        with pytest.raises(ModelError, match=r"training diverged at step \d+ of 34: try a lower lr than 1e\+06"):
            prepare(lr=1e6)
        assert list(tmp_path.rglob("*.safetensors")) == []

    def test_a_last_batch_of_one_image_is_left_out(self, digits: ImageDataset) -> None:
        few = Split(digits.train.images[:9], digits.train.labels[:9])
        small = ImageDataset(**{**vars(digits), "train": few})
        steps: list[int] = []
        model = nn.Sequential(nn.Flatten(), nn.Linear(784, 4), nn.BatchNorm1d(4), nn.Linear(4, 10))
        train(model, small, Recipe(epochs=2, batch_size=4), progress=lambda done, total, _: steps.extend((done, total)))
        assert steps == [4, 4]

    def test_one_cycle_rises_then_falls_to_nothing(self) -> None:
        rates = [one_cycle(step, 100) for step in range(100)]
        assert rates.index(max(rates)) == 19
        assert max(rates) == 1.0
        assert rates[:20] == sorted(rates[:20])
        assert rates[19:] == sorted(rates[19:], reverse=True)
        assert 0 < rates[-1] < 1e-3

    def test_shifts_move_whole_images_within_bounds(self) -> None:
        images = torch.zeros(200, 2, 9, 9, dtype=torch.uint8)
        images[:, 0, 4, 4], images[:, 1, 4, 4] = 1, 2
        moved = shifted(images, 2, torch.Generator().manual_seed(0))
        assert moved.shape == images.shape
        assert torch.equal(moved[:, 0] * 2, moved[:, 1])
        where = moved[:, 0].nonzero()
        assert len(where) == 200
        assert {tuple(w[1:].tolist()) for w in where} == {(y, x) for y in range(2, 7) for x in range(2, 7)}

    def test_mirroring_flips_about_half(self) -> None:
        images = torch.arange(6.0).view(1, 1, 2, 3).expand(400, 1, 2, 3)
        flipped = mirrored(images, torch.Generator().manual_seed(0))
        is_flipped = (flipped == images.flip(-1)).flatten(1).all(1)
        is_same = (flipped == images).flatten(1).all(1)
        assert bool((is_flipped ^ is_same).all())
        assert 150 < int(is_flipped.sum()) < 250

    def test_weight_decay_spares_biases_and_norms(self) -> None:
        model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2))
        decayed, spared = training._optimiser(model, Recipe(weight_decay=0.1)).param_groups
        assert [p.ndim for p in decayed["params"]] == [4]
        assert [p.ndim for p in spared["params"]] == [1, 1, 1]
        assert (decayed["weight_decay"], spared["weight_decay"]) == (0.1, 0.0)

    @pytest.mark.slow
    def test_lenet_on_fashion_mnist_is_as_good_as_the_papers(self, fashion_mnist: ImageDataset, tmp_path: Path) -> None:
        config = BaselineConfig(model="lenet-300-100", dataset="fashion-mnist")
        assert prepare_baseline(config, tmp_path, dataset=fashion_mnist).accuracy >= 89.3


class TestCache:
    def test_second_time_it_comes_from_the_cache(
        self, prepare: Callable[..., Baseline], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = prepare()
        monkeypatch.setattr(baselines, "train", None)
        second = prepare()
        assert (first.origin, second.origin) == ("training", "cache")
        assert (first.key, first.accuracy) == (second.key, second.accuracy)
        assert equal(first.model, second.model)
        assert not second.model.training

    def test_metadata_say_what_it_is(self, prepare: Callable[..., Baseline], tmp_path: Path) -> None:
        baseline = prepare()
        path = cache_path(baseline.config, baseline.key, tmp_path / "cache")
        assert path.name == f"lenet-300-100-digits-{baseline.key}.safetensors"
        with safe_open(path, "pt") as file:
            metadata = file.metadata()
        assert BaselineConfig.model_validate_json(metadata["config"]) == baseline.config
        assert float(metadata["accuracy"]) == baseline.accuracy
        assert metadata["data"] == baseline.dataset.fingerprint

    def test_other_data_are_trained_on_again(
        self, prepare: Callable[..., Baseline], digits: ImageDataset, tmp_path: Path
    ) -> None:
        first = prepare()
        half = Split(digits.train.images[:500], digits.train.labels[:500])
        other = ImageDataset(**{**vars(digits), "train": half})
        again = prepare_baseline(first.config, tmp_path / "cache", dataset=other)
        assert again.origin == "training"

    @pytest.mark.parametrize("damage", ["cut", "text", "weights", "accuracy"])
    def test_a_damaged_cache_is_made_again(self, prepare: Callable[..., Baseline], tmp_path: Path, damage: str) -> None:
        first = prepare()
        path = cache_path(first.config, first.key, tmp_path / "cache")
        if damage == "cut":
            path.write_bytes(path.read_bytes()[:-100])
        elif damage == "text":
            path.write_text("not weights")
        elif damage == "weights":
            bad = {key: torch.full_like(value, torch.nan) for key, value in first.model.state_dict().items()}
            metadata = {"accuracy": "99.0", "data": first.dataset.fingerprint}
            baselines.save_file(bad, path, metadata)
        else:
            baselines.save_file(first.model.state_dict(), path, {"data": first.dataset.fingerprint, "accuracy": "good"})
        again = prepare()
        assert again.origin == "training"
        assert equal(first.model, again.model)
        assert prepare().origin == "cache"

    @pytest.mark.parametrize("place", ["train", "save_file"])
    def test_an_interruption_leaves_nothing(
        self, prepare: Callable[..., Baseline], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str
    ) -> None:
        original = getattr(baselines, place)

        def interrupt(*args: object, **kwargs: object) -> None:
            original(*args, **kwargs)
            raise KeyboardInterrupt

        monkeypatch.setattr(baselines, place, interrupt)
        with pytest.raises(KeyboardInterrupt):
            prepare()
        assert [path for path in (tmp_path / "cache").rglob("*") if path.is_file()] == []

    def test_progress_counts_to_the_end(self, digits: ImageDataset, tmp_path: Path) -> None:
        heard: list[tuple[int, int, str]] = []
        config = BaselineConfig.parse(QUICK)
        prepare_baseline(config, tmp_path, lambda *event: heard.append(event), digits)
        assert heard[-1][:2] == (34, 34)
        assert heard[0][2].startswith("epoch 2/2, loss ")
        assert heard[-1][2].startswith("epoch 2/2, loss ")
        assert [done for done, _, _ in heard] == sorted(done for done, _, _ in heard)


class TestCheckpoint:
    def test_is_loaded_and_measured(
        self, prepare: Callable[..., Baseline], digits: ImageDataset, tmp_path: Path
    ) -> None:
        trained = prepare()
        torch.save(trained.model.state_dict(), tmp_path / "w.pt")
        loaded = prepare(checkpoint=tmp_path / "w.pt")
        assert loaded.origin == "checkpoint"
        assert loaded.key != trained.key
        assert equal(trained.model, loaded.model)
        assert loaded.accuracy == pytest.approx(accuracy_and_loss(trained.model, *digits.inputs("test"))[0])
        assert prepare(checkpoint=tmp_path / "w.pt").origin == "cache"

    def test_that_does_not_fit(self, prepare: Callable[..., Baseline], tmp_path: Path) -> None:
        torch.save(load_model("resnet20").state_dict(), tmp_path / "w.pt")
        with pytest.raises(CheckpointError, match=r"w\.pt does not fit the model"):
            prepare(checkpoint=tmp_path / "w.pt")
        assert list(tmp_path.rglob("*.safetensors")) == []


class TestFit:
    def test_images_of_the_wrong_size(self, digits: ImageDataset, tmp_path: Path) -> None:
        config = BaselineConfig(model="lenet-300-100", dataset="digits", size=32)
        with pytest.raises(ModelError, match=r"'lenet-300-100' does not take images \(1, 32, 32\).*another size"):
            prepare_baseline(config, tmp_path)

    def test_images_too_small_for_the_poolings(self, tmp_path: Path) -> None:
        config = BaselineConfig(model="vgg16", dataset="digits", size=8)
        with pytest.raises(ModelError, match=r"'vgg16' does not take images \(1, 8, 8\)"):
            prepare_baseline(config, tmp_path)

    @pytest.mark.parametrize(
        ("model", "found"),
        [
            (nn.Conv2d(1, 2, 3), r"\(1, 2, 26, 26\)"),
            (nn.Sequential(nn.Flatten(), nn.Linear(784, 9)), r"\(1, 9\)"),
            (nn.Sequential(nn.Flatten(), nn.LSTM(784, 10)), "tuple"),
        ],
    )
    def test_outputs_that_are_no_logits(self, digits: ImageDataset, model: nn.Module, found: str) -> None:
        with pytest.raises(ModelError, match=rf"model 'net' gives {found} for one image; expected logits \(1, 10\)"):
            require_fit("net", model, digits)


class Pair(nn.Module):
    """Takes two images."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(784, 8), nn.Linear(784, 8), nn.Linear(16, 10)

    def forward(self, left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
        return self.c(torch.cat([self.a(left.flatten(1)), self.b(right.flatten(1))], 1))  # type: ignore[no-any-return]


class TestTwoInputs:
    def test_a_dataset_has_only_one(self, digits: ImageDataset) -> None:
        with pytest.raises(
            ModelError, match=r"takes 2 inputs \(left, right\), and a dataset has images alone: wrap it"
        ):
            require_fit("pair", Pair(), digits)

    def test_calibration_is_a_tuple_and_a_recovery_refuses_one(self) -> None:
        from core.compress import compress
        from core.recovery import recover

        inputs = (torch.randn(32, 1, 28, 28), torch.randn(32, 1, 28, 28))
        model = Pair().eval()
        for how in ({"decomposition": "least-squares"}, {"criterion": "obs"}, {"allocation": "budget"}):
            given: Any = {"decomposition": "least-squares", **how}
            assert compress(model, inputs, ratio=0.5, calibration=inputs, **given).model(*inputs).shape == (32, 10)
        with pytest.raises(UsageError, match="calibration must be a tuple of 2 tensors"):
            compress(model, inputs, ratio=0.5, calibration=inputs[0], decomposition="least-squares")
        with pytest.raises(UsageError, match="distill trains networks of one input: pass a tensor of images"):
            recover(model, model, inputs, steps=1)  # type: ignore[arg-type]


def test_whatever_a_network_says_to_an_image_is_a_sentence(digits: ImageDataset) -> None:
    class Odd(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise KeyError("mask")

    with pytest.raises(ModelError, match=r"'odd' does not take images \(1, 28, 28\) of 'digits' \('mask'\)"):
        require_fit("odd", Odd(), digits)


def test_a_network_that_cannot_be_followed_says_so_before_it_is_trained(
    digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(baselines, "train", lambda *_, **__: pytest.fail("it was trained"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    text = (
        "from torch import nn\nclass Turns(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.a = nn.Linear(784, 10)\n"
        "    def forward(self, x):\n        x = self.a(x.flatten(1))\n        return -x if x.sum() > 0 else x\n"
    )
    (tmp_path / "my_turning_net.py").write_text(text)
    config = BaselineConfig(model="my_turning_net:Turns", dataset="digits")
    with pytest.raises(ModelError, match=r"Turns cannot be traced. torch.fx: .*`return -x if x.sum\(\) > 0 else x`"):
        prepare_baseline(config, tmp_path / "cache", dataset=digits)
    assert capfd.readouterr() == ("", "")
