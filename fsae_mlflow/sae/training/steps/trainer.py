"""One SAE, its optimizer and its place in the schedule."""

import math
import time
from collections.abc import Callable
from typing import Any, Never

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from fsae_mlflow.errors import UserError
from fsae_mlflow.machine.ranks import Ranks
from fsae_mlflow.sae.base import SparseAutoencoder
from fsae_mlflow.sae.optimizer import AdamW
from fsae_mlflow.sae.terms import TERMS, Loss
from fsae_mlflow.sae.training.data import TrainingData
from fsae_mlflow.sae.training.distributed import cut, join, part_of, whole_shapes
from fsae_mlflow.sae.training.settings import TrainSettings
from fsae_mlflow.sae.training.start import Space
from fsae_mlflow.sae.training.steps.mixup import mixup
from fsae_mlflow.sae.training.steps.resampling import POOL, draw_directions, revive
from fsae_mlflow.sae.training.steps.schedule import learning_rate
from fsae_mlflow.sae.training.steps.sparsity import Sparsity

FUSED_ABOVE = 3e11  # multiply-adds of a whole training above which compiling the fused step (some seconds) pays
POSITION = ("step", "steps_since_resampling", "seconds", "templates_timed")


class Trainer:
    """Takes optimizer steps. Everything that decides the next step is in `state`, so that another trainer can go on.

    `sae` is this rank's part of the SAE, in `space`, or without one in that of the scaled templates. People of
    `steering`, or without any those of `data`, steer λ where it is found. What concerns all features (`state`, `whole`,
    resampling) is done by all ranks together.
    """

    def __init__(
        self,
        settings: TrainSettings,
        sae: SparseAutoencoder,
        data: TrainingData,
        ranks: Ranks | None = None,
        *,
        space: Space | None = None,
        steering: TrainingData | None = None,
    ) -> None:
        self.settings = settings
        self.ranks = ranks or Ranks()
        self.d_sae = sae.d_sae
        self.batches_per_epoch = math.ceil(len(data) / settings.batch_size)
        self.n_steps = settings.epochs * self.batches_per_epoch
        self.scaled = (space or sae).scaled
        self.sparsity = Sparsity(settings.variant, sae, self.scaled, steering or data, self.n_steps)
        self.sae = sae = part_of(sae, self.ranks)
        self.data = data
        betas = (settings.beta1, settings.beta2)
        self.optimizer = AdamW.of(sae, lr=settings.lr, betas=betas, weight_decay=settings.weight_decay)
        self.step = self.steps_since_resampling = 0
        self.templates_since_fired = torch.zeros(sae.d_sae, dtype=torch.long, device=sae.W_dec.device)
        self.n_dead: int | None = None  # of the coming step where features compete; None where it is not known yet
        self.seconds, self.templates_timed = 0.0, 0
        self._fused = self._make_fused() if self._fused_pays() else None

    @property
    def is_fused(self) -> bool:
        """Whether the fused step is taken."""
        return self._fused is not None

    @property
    def epoch(self) -> int:
        """How many epochs are complete."""
        return self.step // self.batches_per_epoch

    @property
    def templates_per_second(self) -> float:
        """Throughput of the optimization alone, without measuring."""
        return self.templates_timed / self.seconds if self.seconds else 0.0

    def run_epoch(self, after_step: Callable[[], None]) -> dict[str, float]:
        """The rest of the current pass over the templates, in a seeded order; then resampling, when it is due."""
        epoch, done = self.epoch + 1, self.step % self.batches_per_epoch
        n_dead = n_resampled = n_taken = 0
        # The sums stay on the device until the epoch ends: each number read from a GPU makes the CPU wait for it.
        sums: Tensor | float = 0.0
        started = time.perf_counter()
        for number, batch in enumerate(self.data.batches(self.settings.batch_size, self._generator(epoch))):
            if number < done:
                continue
            batch = mixup(batch, self.settings.mixup, self._generator(self.step))
            loss = self.run_step(self.scaled(batch.to(self.sae.W_dec.device)))
            n_taken += len(batch)
            sums += loss.stacked.double() * len(batch)
            if self.step == epoch * self.batches_per_epoch:
                n_dead = int(self.ranks.sum(self._dead(epoch).sum()))
                if n_dead and self.settings.variant.resampling_due(epoch, self.settings.epochs):
                    n_resampled = self._resample(epoch)
            self.seconds += time.perf_counter() - started
            self.templates_timed += len(batch)
            after_step()
            started = time.perf_counter()
        means = (torch.as_tensor(sums) / n_taken).tolist()
        return {
            **{f"train/step_loss_{term}": value for term, value in zip(TERMS, means, strict=True)},
            "lr": self.optimizer.param_groups[0]["lr"],
            **self.sparsity.metrics(),
            "n_resampled": float(n_resampled),
            "n_dead": float(n_dead),
            "templates_per_second": self.templates_per_second,
        }

    def run_step(self, batch: Float[Tensor, "batch d_in"]) -> Loss:
        """One optimizer step on scaled templates.

        Raises: UserError when the loss is not finite, before any weight has changed.
        """
        rate = learning_rate(self.settings, self.step, self.n_steps, self.steps_since_resampling)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        sparsity_weight = self.sparsity.variant.sparsity_weight(self.step)
        dead = self._competing_dead()
        if self._fused is not None:
            loss = self._fused.forward(batch, sparsity_weight=sparsity_weight, dead=dead)
            silence, l0 = self._read(loss, len(batch))
            self._fused.update()
        else:
            loss = self.sae.loss(batch, sparsity_weight=sparsity_weight, dead=dead)
            silence, l0 = self._read(loss, len(batch))
            self.optimizer.zero_grad()
            loss.total.backward()
            self.sae.remove_parallel_gradient()
            self.optimizer.step()
            self.sae.normalize_decoder()
        self.sae.after_step(loss)
        self.sparsity.correct(self.step, l0, rate / self.settings.lr)
        self.templates_since_fired = silence
        self.step += 1
        self.steps_since_resampling += 1
        return loss

    def whole(self) -> SparseAutoencoder:
        """The SAE with the features of all ranks and the λ of now."""
        self.sae.settings = self.sparsity.variant
        if self.ranks.alone:
            return self.sae
        whole = self.sae.untrained(self.d_sae)
        whole.load_state_dict(join(self.sae.state_dict(), self.sae, self.ranks, self.d_sae))
        return whole

    def state(self) -> dict[str, Any]:
        """Weights, the optimizer's moments and the position. Random numbers follow from the seed and the position."""
        return {
            **{name: join(tensors, self.sae, self.ranks, self.d_sae) for name, tensors in self._tensors().items()},
            "silence": {"templates_since_fired": self.ranks.joined(self.templates_since_fired, self.d_sae)},
            "sparsity": self.sparsity.state(),
            **{name: getattr(self, name) for name in POSITION},
        }

    def require_own(self, state: dict[str, Any]) -> None:
        """Check that `state` can be one of this training.

        Raises: ValueError for other names or shapes, for numbers that are not finite, and for a position outside the
        training or other than the optimizer's; other exceptions where something is missing or no tensor.
        """
        self.require_own_weights(state["weights"])
        moments = whole_shapes(dict(self.sae.named_parameters()), self.sae, self.d_sae) if state["step"] else {}
        for part in ("exp_avg", "exp_avg_sq"):
            _require(state[part], moments, part)
        _require(state["steps"], dict.fromkeys(moments, torch.Size()), "steps")
        silence = _silence(state["silence"])
        if silence.shape != (self.d_sae,) or (silence < 0).any():
            raise ValueError("templates_since_fired must be one number for each feature, at least 0")
        self.sparsity.require_own(state.get("sparsity", {}))
        step, since, *timed = (state[name] for name in POSITION)
        if not (type(step) is type(since) is int and 0 <= since <= step <= self.n_steps):
            raise ValueError(f"step {step} (resampled {since} before) is outside of the training")
        if any(float(number) != step for number in state["steps"].values()):
            raise ValueError(f"step {step} differs from the optimizer's")
        if not all(math.isfinite(value) and value >= 0 for value in timed):
            raise ValueError("times must be at least 0")

    def require_own_weights(self, weights: dict[str, Tensor]) -> None:
        """Check that the weights can be the whole SAE's.

        Raises: ValueError for other names or shapes, and for numbers that are not finite.
        """
        _require(weights, whole_shapes(self.sae.state_dict(), self.sae, self.d_sae), "weights")

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over the state that another trainer gave, whatever the number of its ranks."""
        parts = {
            name: cut(state[name], self.sae, self.ranks, self.d_sae)
            for name in ("weights", "exp_avg", "exp_avg_sq", "steps")
        }
        self.sae.load_state_dict(parts["weights"])
        self.templates_since_fired.copy_(_silence(state["silence"])[self.ranks.part(self.d_sae)])
        self.n_dead = None
        self.sparsity.load_state(state.get("sparsity", {}))
        for name, parameter in self.sae.named_parameters():
            if name in parts["steps"]:
                moments = {moment: parts[moment][name].to(parameter.device) for moment in ("exp_avg", "exp_avg_sq")}
                self.optimizer.state[parameter] = moments | {"step": parts["steps"][name].to(parameter.device)}
        for name in POSITION:
            setattr(self, name, state[name])

    def _tensors(self) -> dict[str, dict[str, Tensor]]:
        moments = {
            name: self.optimizer.state[parameter]
            for name, parameter in self.sae.named_parameters()
            if self.optimizer.state[parameter]
        }
        return {
            "weights": self.sae.state_dict(),
            "exp_avg": {name: moment["exp_avg"] for name, moment in moments.items()},
            "exp_avg_sq": {name: moment["exp_avg_sq"] for name, moment in moments.items()},
            "steps": {name: moment["step"] for name, moment in moments.items()},
        }

    def _generator(self, place: int) -> torch.Generator:
        """Random numbers that follow from the seed and a place (epoch or step) in the training."""
        return torch.Generator().manual_seed(self.settings.seed * 1_000_003 + place)

    def _dead(self, epoch: int) -> Bool[Tensor, " d_sae"]:
        return self.templates_since_fired >= self._silence_of_the_dead(epoch)

    def _silence_of_the_dead(self, epoch: int) -> float:
        return self.settings.variant.epochs_until_dead(epoch, self.settings.epochs) * len(self.data)

    def _competing_dead(self) -> Int[Tensor, " n_dead"] | None:
        """The dead features where features compete, without a read from the device: the last step's was enough."""
        if self.sae.competition is None:
            return None
        dead = self._dead(self.epoch + 1)
        n_dead = int(dead.sum()) if self.n_dead is None else self.n_dead
        return torch.nonzero_static(dead, size=n_dead).squeeze(1)

    def _read(self, loss: Loss, n_taken: int) -> tuple[Int[Tensor, " d_sae"], float]:
        """Read from the device, at once, all that the CPU must know of a step: whether its loss is finite, and how many
        features are dead after it where features compete. Returns each feature's new silence, and the L0 to steer by.
        """
        silence = (self.templates_since_fired + n_taken).masked_fill_(loss.fired, 0)
        dead = silence.new_zeros(0)
        if self.sae.competition is not None:
            dead = silence >= self._silence_of_the_dead((self.step + 1) // self.batches_per_epoch + 1)
        l0 = self.sparsity.l0(self.step, self.sae, loss, n_taken, self.ranks)
        total, n_dead, l0 = torch.stack((loss.total.detach().double(), dead.sum().double(), l0)).tolist()
        if not math.isfinite(total):
            self._refuse(loss)
        self.n_dead = int(n_dead)
        return silence, l0

    @torch.no_grad()
    def _resample(self, epoch: int) -> int:
        """Give dead features new directions; return how many, of all ranks, got one."""
        generator = self._generator(self.step)
        pool = self.scaled(next(self.data.batches(POOL, generator)).to(self.sae.W_dec.device))
        dead = self.ranks.joined(self._dead(epoch), self.d_sae)
        new = draw_directions(self.whole(), dead, pool, generator=generator)
        if len(new.rows):
            revive(self.sae, self.optimizer, new.within(self.ranks.part(self.d_sae)))
            self.steps_since_resampling = 0
        return len(new.rows)

    def _fused_pays(self) -> bool:
        on_cpu = self.sae.W_dec.device.type == "cpu"
        if not self.ranks.alone:
            if not on_cpu or self.settings.step == "plain":
                raise UserError("Training under torchrun needs the fused step on the CPU; use device=cpu, step=auto.")
            return True
        if self.settings.step == "fused" and not on_cpu:
            raise UserError(
                f"step=fused runs on the CPU, and the device is {self.sae.W_dec.device}; use step=auto or device=cpu."
            )
        work = 7 * self.n_steps * self.settings.batch_size * self.sae.W_enc.numel()
        return on_cpu and (self.settings.step == "fused" or (self.settings.step == "auto" and work > FUSED_ABOVE))

    def _make_fused(self) -> Any:
        # Numba takes a moment to import; a small training need not wait for it.
        from fsae_mlflow.sae.fused.step import FusedStep

        return FusedStep(self.sae, self.optimizer, self.ranks)

    def _refuse(self, loss: Loss) -> Never:
        terms = ", ".join(f"{name} {value}" for name, value in loss.as_floats().items() if not math.isfinite(value))
        raise UserError(
            f"The loss is not finite at step {self.step} ({terms}); "
            f"lower lr ({self.settings.lr}) or check the templates."
        )


def _silence(state: dict[str, Tensor]) -> Tensor:
    # Checkpoints of version 0.1 have it by its former name.
    return state["idle" if "idle" in state else "templates_since_fired"]


def _require(tensors: dict[str, Tensor], shapes: dict[str, torch.Size], part: str) -> None:
    if {name: tensor.shape for name, tensor in tensors.items()} != shapes:
        raise ValueError(f"its {part} have other names or shapes")
    if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
        raise ValueError(f"its {part} have values that are not finite")
