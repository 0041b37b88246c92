"""The training loop: it learns, repeats itself exactly, and keeps the weights that it was told to keep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import tiny
from bregma.data.loader import batches
from bregma.errors import ConfigError, RunError
from bregma.training.checkpoint import read_checkpoint
from bregma.training.history import read_history
from bregma.training.loop import Trainer
from bregma.training.settings import Plan
from tiny_training import Stopper, assert_same, scripted, trainer

ROUGH = {"augment": {"rotation_deg": 10, "scale": 0.1, "noise": 0.02, "elastic": 0.01}, "train": {"select": "last"}}
STEADY: dict[str, Any] = {"schedule": {"name": "constant", "warmup_steps": 0}}
FAST: dict[str, Any] = {"epochs": 16, "validate_every": 4, "optimizer": {"lr": 1e-2}, "ema": 0.9}


class TestRepeatability:
    def test_the_seed_decides(self, tmp_path: Path) -> None:
        runs = [
            trainer(tmp_path / str(number), tiny.plan(augment=ROUGH["augment"], train={"seed": seed, "select": "last"}))
            for number, seed in enumerate([5, 5, 6])
        ]
        first, again, other = [run.fit() for run in runs]
        assert_same(first, again)
        assert not torch.equal(first.weights["heads.maps.weight"], other.weights["heads.maps.weight"])

    def test_threads_that_load_do_not(self, tmp_path: Path) -> None:
        alone = trainer(tmp_path / "0", tiny.plan(**ROUGH)).fit()
        plan = tiny.plan(augment=ROUGH["augment"], train={"select": "last", "workers": 3, "cache_mb": 0})
        assert_same(trainer(tmp_path / "3", plan).fit(), alone)


class TestLearning:
    @pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
    def test_heatmaps(self, tmp_path: Path, precision: str) -> None:
        history = learn(tmp_path, tiny.plan(train=FAST | {"precision": precision}))
        assert history[-1]["val_mre_px"] < 2.0  # A guess at the middle of the image would be 18 px away.
        assert history[-1]["train_loss"] < history[0]["train_loss"] - 0.2

    def test_regressed_maps(self, tmp_path: Path) -> None:
        plan = tiny.plan(model={"codec": {"activation": "linear"}}, loss=[{"name": "mse"}], train=FAST)
        assert learn(tmp_path, plan)[-1]["val_mre_px"] < 2.0

    def test_coordinates(self, tmp_path: Path) -> None:
        # Pooled features cannot tell where a spot is, so what is learned is where the spots of these cases lie.
        plan = tiny.plan(codec={"name": "coordinate"}, loss=[{"name": "wing"}], train=FAST | {"epochs": 60})
        trained = Trainer(plan, tiny.SCHEMA, tiny.cases(1), tiny.cases(1), tmp_path).fit()
        assert trained.history[-1]["val_mre_px"] < 0.3 * trained.history[0]["val_mre_px"]

    def test_predicted_covariance_follows_the_errors(self, tmp_path: Path) -> None:
        codec = {"name": "coordinate", "covariance": True}
        plan = tiny.plan(codec=codec, loss=[{"name": "gaussian_nll"}], train=FAST | {"epochs": 32})
        built = trainer(tmp_path, plan, train=tiny.cases(16))
        trained = built.fit()
        assert trained.history[-1]["train_gaussian_nll"] < trained.history[0]["train_gaussian_nll"]
        # Uniform positions over 0.7 x 64 px that cannot be told from one another vary by 44.8² / 12 = 167 px².
        batch = next(batches(built.validation, [(0, 1, 2)], workers=0))
        with torch.no_grad():
            outputs = built.average.network(batch.images)
        variance = built.codec.decode(outputs, (64, 64)).cov_in.diagonal(dim1=-2, dim2=-1)
        assert 80 < float(variance.mean()) < 350


def learn(folder: Path, plan: Plan) -> list[dict[str, float]]:
    return trainer(folder, plan, train=tiny.cases(16)).fit().history


class TestWhichWeights:
    """Validation errors are given, so that it is known which epoch is the best."""

    def test_the_best_ones(self, tmp_path: Path) -> None:
        trained = scripted(tmp_path / "a", tiny.plan(train=STEADY | {"epochs": 4}), [5, 3, 4, 3]).fit()
        assert (trained.epoch, trained.best_mre_px) == (2, 3)
        two = scripted(tmp_path / "b", tiny.plan(train=STEADY | {"epochs": 2, "select": "last"}), [1, 2]).fit()
        assert trained.weights.keys() == two.weights.keys()
        for name, tensor in two.weights.items():
            assert torch.equal(tensor, trained.weights[name]), name
        assert two.epoch == 2

    def test_the_last_ones(self, tmp_path: Path) -> None:
        built = scripted(tmp_path, tiny.plan(train=STEADY | {"select": "last"}), [1, 2, 3])
        trained = built.fit()
        assert (trained.epoch, trained.best_mre_px) == (3, 1)
        assert torch.equal(trained.weights["heads.maps.bias"], built.average.network.state_dict()["heads.maps.bias"])

    def test_without_an_average_the_network_itself(self, tmp_path: Path) -> None:
        built = scripted(tmp_path, tiny.plan(train=STEADY | {"select": "last", "ema": 0}), [1, 2, 3])
        trained = built.fit()
        assert torch.equal(trained.weights["heads.maps.bias"], built.network.module.state_dict()["heads.maps.bias"])

    def test_early_stopping_counts_validations_without_a_new_best(self, tmp_path: Path) -> None:
        plan = tiny.plan(train={"epochs": 9, "early_stop": 2})
        trained = scripted(tmp_path, plan, [5, 4, 4, 6, 1]).fit()
        assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
        assert trained.epoch == 2
        resumed = scripted(tmp_path, plan, [])
        assert_same(resumed.fit(resume=True), trained)

    def test_without_validation_it_never_stops_early(self, tmp_path: Path) -> None:
        trained = trainer(tmp_path, tiny.plan(train={"epochs": 4, "early_stop": 1}), val=0).fit()
        assert [row["epoch"] for row in trained.history] == [1, 2, 3, 4]
        assert (trained.epoch, trained.best_mre_px) == (4, None)
        assert all("val_mre_px" not in row for row in trained.history)

    def test_plateau_lowers_the_rate(self, tmp_path: Path) -> None:
        schedule = {"name": "plateau", "warmup_steps": 0, "patience": 2, "factor": 0.5, "final": 0.2}
        train = {"epochs": 9, "schedule": schedule, "optimizer": {"lr": 1e-3}}
        history = scripted(tmp_path, tiny.plan(train=train), [5, 6, 6, 4, 4, 4, 4, 4, 4]).fit().history
        # Two bad validations in a row halve it, at epochs 3, 6 and 8; the third time its floor of 0.2 is met.
        assert [row["lr"] for row in history] == pytest.approx([1e-3] * 3 + [5e-4] * 3 + [2.5e-4] * 2 + [2e-4])

    def test_validations_every_second_epoch_and_at_the_end(self, tmp_path: Path) -> None:
        trained = scripted(tmp_path, tiny.plan(train={"epochs": 5, "validate_every": 2}), [3, 2, 1]).fit()
        assert [row["epoch"] for row in trained.history] == [2, 4, 5]
        assert [row["images"] for row in read_history(tmp_path / "history.csv")] == [16, 32, 40]
        assert trained.images == 40


class TestLabels:
    def test_an_unlabelled_landmark_teaches_nothing(self, tmp_path: Path) -> None:
        train = tiny.cases(8, status=(tiny.VISIBLE, tiny.UNLABELLED))
        built = trainer(tmp_path, tiny.plan(train={"optimizer": {"weight_decay": 0}, "ema": 0}), train=train, val=0)
        before = built.network.module.state_dict()["heads.maps.weight"].clone()
        after = built.fit().weights["heads.maps.weight"]
        assert torch.equal(after[1], before[1])
        assert (after[0] != before[0]).all()

    def test_absence_is_learned_from_landmarks_outside(self, tmp_path: Path) -> None:
        train = tiny.cases(8, status=(tiny.VISIBLE, tiny.OUTSIDE))
        codec = {"name": "heatmap", "presence": True}
        loss = [{"name": "cross_entropy"}, {"name": "presence"}]
        plan = tiny.plan(codec=codec, loss=loss, train={"optimizer": {"lr": 0.02, "weight_decay": 0}, "epochs": 8})
        built = trainer(tmp_path, plan, train=train, val=0)
        maps = built.network.module.state_dict()["heads.maps.weight"].clone()
        after = built.fit().weights
        assert torch.equal(built.network.module.state_dict()["heads.maps.weight"][1], maps[1])
        assert after["heads.vectors.presence.bias"][0] > 0.05
        assert after["heads.vectors.presence.bias"][1] < -0.05

    def test_validation_needs_labels(self, tmp_path: Path) -> None:
        unlabelled = tiny.cases(2, status=(tiny.UNLABELLED, tiny.UNLABELLED))
        with pytest.raises(ConfigError, match="validation cases carry no labels"):
            Trainer(tiny.plan(), tiny.SCHEMA, tiny.cases(8), unlabelled, tmp_path).fit()


class TestRefusals:
    @pytest.mark.parametrize("lr", [1e20, 1e38])
    def test_numbers_that_run_away(self, tmp_path: Path, lr: float) -> None:
        plan = tiny.plan(train={"optimizer": {"lr": lr}, "schedule": {"warmup_steps": 0}})
        with pytest.raises(RunError, match=r"no longer holds? finite numbers.*epoch.*lower train.optimizer.lr"):
            trainer(tmp_path, plan).fit()

    def test_a_device_that_is_not_there(self, tmp_path: Path) -> None:
        absent = "mps" if torch.cuda.is_available() else "cuda"
        with pytest.raises(ConfigError, match=f"there is no '{absent}' here.*auto or one of"):
            trainer(tmp_path, tiny.plan(train={"accelerator": absent}))

    def test_float16_on_a_processor(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"train.precision.*float16.*bf16-mixed"):
            trainer(tmp_path, tiny.plan(train={"precision": "16-mixed"}))

    def test_more_devices_than_images(self, tmp_path: Path) -> None:
        plan = tiny.plan(train={"devices": 4})
        with pytest.raises(ConfigError, match=r"train.devices.*more devices than training images.*3 at most"):
            trainer(tmp_path, plan, train=tiny.cases(3))

    def test_a_loss_that_the_codec_cannot_feed(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="'gaussian_nll' needs the output 'cholesky'"):
            trainer(tmp_path, tiny.plan(loss=[{"name": "gaussian_nll"}]))

    def test_a_size_that_the_network_cannot_halve(self, tmp_path: Path) -> None:
        plan = tiny.plan(model={"preprocess": {"size": [64, 68]}, "network": {"levels": 4}})
        with pytest.raises(ConfigError, match=r"preprocess.size.*64 x 68.*multiples of 8"):
            trainer(tmp_path, plan)

    def test_a_batch_that_does_not_divide(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"train.batch_size.*a multiple of train.devices=3, got 4"):
            trainer(tmp_path, tiny.plan(train={"devices": 3}))

    def test_a_size_that_the_maps_do_not_divide(self) -> None:
        with pytest.raises(ValueError, match=r"size must be a multiple of model.network.map_stride=4"):
            tiny.plan(model={"preprocess": {"size": [66, 64]}})


def test_what_an_observer_hears(tmp_path: Path) -> None:
    observer = Stopper()
    trained = trainer(tmp_path, observer=observer).fit()
    assert observer.starts == [(0, 3, 2)]
    assert len(observer.losses) == 6
    assert [row for row, _ in observer.rows] == trained.history
    assert observer.rows[0][1]
    assert trained.history[0]["train_loss"] == pytest.approx(np.mean(observer.losses[:2]), rel=1e-6)


def test_checkpoints_come_no_faster_than_told(tmp_path: Path) -> None:
    class Look(Stopper):
        def validated(self, row: dict[str, float], best: bool) -> None:
            assert not (tmp_path / "checkpoint" / "last.safetensors").exists()

    trainer(tmp_path, tiny.plan(train={"checkpoint_seconds": 1e6}), observer=Look()).fit()
    assert read_checkpoint(tmp_path / "checkpoint" / "last.safetensors")[1]["progress"]["epoch"] == 3


SCRIPT = """
import sys
from pathlib import Path
sys.path.insert(0, {tests!r})
import tiny
from bregma.training.loop import Trainer
from safetensors.torch import save_file

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    plan = tiny.plan(train={{"devices": 2, **{train!r}}})
    trainer = Trainer(plan, tiny.SCHEMA, tiny.cases(8), tiny.cases(3, start=50), folder)
    trained = trainer.fit()
    rank = trainer.fabric.global_rank
    save_file({{k: v.contiguous() for k, v in trained.weights.items()}}, folder / f"rank{{rank}}.safetensors")
    (folder / f"rank{{rank}}.txt").write_text(repr([row["val_mre_px"] for row in trained.history]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("phases", [[], [{"epochs": 1, "freeze": ["backbone"]}, {"epochs": 1, "freeze": ["head"]}]])
def test_two_processes_train_as_one(tmp_path: Path, phases: list[dict[str, Any]]) -> None:
    train = {"epochs": 2, "select": "last", "phases": phases, "accumulate": 2 if phases else 1, "ema": 0}
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(tests=str(Path(tiny.__file__).parent), train=train))
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), str(tmp_path)], env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stderr
    zero, one = (load_file(tmp_path / f"rank{rank}.safetensors") for rank in (0, 1))
    for name, tensor in zero.items():
        if "running" not in name:
            assert torch.allclose(tensor, one[name], atol=1e-6), name
    histories = [(tmp_path / f"rank{rank}.txt").read_text() for rank in (0, 1)]
    assert histories[0] == histories[1]
    alone = trainer(tmp_path / "alone", tiny.plan(train=train)).fit()
    # Batch normalisation sees half a batch on each device, so the weights are near, not equal.
    step = max(float((alone.weights[n] - t).abs().max()) for n, t in zero.items() if "weight" in n)
    assert 0 < step < 0.02
