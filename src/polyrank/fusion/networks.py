"""Training a network that scores the candidates of requests: padded batches, the pairwise loss, early stopping."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
import numpy.typing as npt
import torch
from annotated_types import Ge, Gt
from torch import Tensor, nn

from polyrank.errors import TrainingDiverged
from polyrank.metrics.checks import Rows
from polyrank.progress import Bar

Positions = npt.NDArray[np.int64]
NONE = -1  # pads a request


@dataclass(frozen=True)
class NetworkConfig:
    """How a fusion's network is trained.

    Attributes:
        epochs: passes over the requests, at most.
        patience: stop after so many passes without a smaller validation loss; the best pass is kept.
        learning_rate: of Adam.
        weight_decay: decoupled; pulls towards the equal weighting that the networks begin with.
        pairs: the most pairs of candidates in a batch: memory.
        seed: of the initial weights and the order of requests.
    """

    epochs: Annotated[int, Gt(0)] = 60
    patience: Annotated[int, Gt(0)] = 8
    learning_rate: Annotated[float, Gt(0)] = 3e-3
    weight_decay: Annotated[float, Ge(0)] = 1e-2
    pairs: Annotated[int, Gt(0)] = 20_000
    seed: Annotated[int, Ge(0)] = 0


def padded(requests: Rows, pairs: int, generator: np.random.Generator | None = None) -> Iterator[Positions]:
    """Batches of whole requests: row positions `[R, L]`, `NONE` where a request is shorter than its batch's longest.

    Args:
        requests: `[N]` int64, in any order.
        pairs: R · L² is at most this, but for a single request that is larger.
        generator: shuffles the requests; None keeps them, shortest first, which pads least.
    """
    order = np.argsort(requests, kind="stable").astype(np.int64)
    _, starts, sizes = np.unique(requests[order], return_index=True, return_counts=True)
    sequence = np.argsort(sizes, kind="stable")
    if generator is not None:
        sequence = generator.permutation(sequence)
    begin, longest = 0, 0
    for place, request in enumerate(sequence):
        longer = max(longest, int(sizes[request]))
        if place > begin and (place - begin + 1) * longer**2 > pairs:
            yield _block(order, starts, sizes, sequence[begin:place])
            begin, longer = place, int(sizes[request])
        longest = longer
    if begin < len(sequence):
        yield _block(order, starts, sizes, sequence[begin:])


def _block(order: Positions, starts: Positions, sizes: Positions, chosen: Positions) -> Positions:
    place = np.arange(sizes[chosen].max(initial=0))
    inside = place < sizes[chosen][:, None]
    rows = np.minimum(starts[chosen][:, None] + place, len(order) - 1)
    return np.where(inside, order[rows], NONE)


def pairwise_loss(scores: Tensor, target: Tensor, present: Tensor, *, weighted: bool = True) -> Tensor:
    """`Σ_{t_i > t_j} (t_i − t_j) · ln(1 + e^{−(s_i − s_j)}) / Σ_{t_i > t_j} (t_i − t_j)` over pairs of one request.

    Args:
        scores: `[R, L]`.
        target: `[R, L]`: the reward, or a head.
        present: `[R, L]` bool, false on padding.
        weighted: by the difference of the targets; else every such pair counts 1.

    Returns:
        A scalar; 0 where no pair differs.

    Source: Burges et al., RankNet, ICML 2005; weights by the difference of gain.
    """
    above = target.unsqueeze(2) - target.unsqueeze(1)
    counted = (above > 0) & present.unsqueeze(2) & present.unsqueeze(1)
    weights = torch.where(counted, above if weighted else torch.ones_like(above), 0.0)
    losses = nn.functional.softplus(scores.unsqueeze(1) - scores.unsqueeze(2))
    return (weights * losses).sum() / weights.sum().clamp_min(1e-12)


Loss = Callable[[Positions], Tensor]  # of a batch of positions, `padded`


def fit(
    net: nn.Module,
    train: tuple[Rows, Loss],
    valid: tuple[Rows, Loss],
    config: NetworkConfig,
    bar: Bar | None,
    each_epoch: Callable[[], None] = lambda: None,
) -> None:
    """Train until the validation loss stops falling, and leave the network as it was at its best.

    Args:
        net: is trained in place.
        train: request ids `[N]`, and the loss of a batch of them.
        valid: the same of validation rows.
        config: the knobs.
        bar: is advanced by 1 an epoch, and by what early stopping saved.
        each_epoch: is called before every epoch.

    Raises:
        TrainingDiverged: a loss is not finite.
    """
    generator = np.random.default_rng(config.seed)
    optimizer = torch.optim.AdamW(net.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay)
    best, best_state, since = np.inf, {k: v.clone() for k, v in net.state_dict().items()}, 0
    for epoch in range(config.epochs):
        each_epoch()
        net.train()
        for batch in padded(train[0], config.pairs, generator):
            loss = train[1](batch)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        net.eval()
        with torch.inference_mode():
            batches = list(padded(valid[0], config.pairs))
            losses = [(float(valid[1](batch)), len(batch)) for batch in batches]
        found = sum(value * size for value, size in losses) / max(sum(size for _, size in losses), 1)
        if not np.isfinite(found):
            raise TrainingDiverged(
                "the loss of a learned fusion must be finite",
                received=f"{found} in epoch {epoch + 1}",
                mend="lower its learning_rate",
            )
        if found < best:
            best, best_state, since = found, {k: v.clone() for k, v in net.state_dict().items()}, 0
        else:
            since += 1
        if bar is not None:
            bar.advance(1, f"validation loss {found:.4f}, best {best:.4f}")
        if since >= config.patience:
            if bar is not None:
                bar.advance(config.epochs - epoch - 1)
            break
    net.load_state_dict(best_state)
    net.eval()
