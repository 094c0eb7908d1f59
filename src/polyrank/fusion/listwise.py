"""The request-wise ranker: candidates look at one another before they are scored.

EMER-lite, after EMER: An End-to-end Multi-objective Ensemble Ranking framework, arXiv 2508.05093.
"""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from polyrank.evaluation.requests import Requests
from polyrank.fusion.fusion import Columns, read_columns
from polyrank.fusion.listwise_nets import ListwiseConfig, ListwiseNet, RivalryNet
from polyrank.fusion.networks import NONE, Positions, fit, padded, pairwise_loss
from polyrank.fusion.scaling import Scaling
from polyrank.fusion.trained import NetworkFusion
from polyrank.fusion.transforms import rank_within
from polyrank.metrics.checks import Floats, Rows
from polyrank.metrics.toplists import ndcg
from polyrank.progress import Bar


@dataclass(frozen=True, eq=False)
class ListwiseFusion(NetworkFusion):
    """A trained `ListwiseNet`, or a `RivalryNet` where its config says `monotone`."""

    kind: ClassVar[str] = "listwise"
    configured = ListwiseConfig
    within_request = True

    @staticmethod
    def network(scaling: Scaling, config: ListwiseConfig) -> nn.Module:
        """See `NetworkFusion.network`."""
        kind = RivalryNet if config.monotone else ListwiseNet
        return kind(len(scaling.heads), len(scaling.context), config)

    def score(self, rows: Columns, requests: Rows | None = None) -> Floats:
        """See `Fusion.score`."""
        columns = read_columns(rows, (*self.heads, *self.context))
        count = len(columns[self.heads[0]])
        groups = np.zeros(count, np.int64) if requests is None else np.asarray(requests, np.int64)
        x = torch.from_numpy(features(self.scaling, columns, groups))
        return scored(self.net, x, groups, self.config.pairs)


def scored(net: nn.Module, x: Tensor, requests: Rows, pairs: int) -> Floats:
    """Scores `[N]` of rows with features `[N, F]`, request by request."""
    scores = np.zeros(len(x))
    with torch.inference_mode():
        for batch in padded(requests, pairs):
            inside = batch != NONE
            found = net(x[torch.from_numpy(batch)], torch.from_numpy(inside)).numpy()
            scores[batch[inside]] = found[inside]
    return scores


def features(scaling: Scaling, columns: Columns, requests: Rows) -> Floats:
    """`[N, 2K + C]`: scaled heads, their places within the request, context."""
    z, c = scaling.inputs(columns)
    places = np.stack([place_within(head, requests) for head in z.T], axis=1)
    return np.concatenate((z, places, c), axis=1)


def place_within(values: Rows, requests: Rows) -> Floats:
    """The normalised rank `[N]` within the request: 1 for the highest to 0 for the lowest; ½ for one alone."""
    _, member, sizes = np.unique(requests, return_inverse=True, return_counts=True)
    others = sizes[member] - 1
    ranks = rank_within(values, requests)
    return np.where(others > 0, 1 - (ranks - 1) / np.maximum(others, 1), 0.5)


def learn_listwise(
    train: Requests,
    valid: Requests,
    context: tuple[str, ...],
    negative: tuple[str, ...],
    config: ListwiseConfig,
    bar: Bar | None = None,
) -> ListwiseFusion:
    """Train the network by pairs on the reward (posterior) and on each head (prior).

    `L = L_pair(reward) + prior · mean_k w_k L_pair(head_k)`, w_k = m_k of the epoch before / m_k now, m_k the NDCG@k of
    the order against the head (the paper's self-evolving weights, whose metric is DCG@K): a head that the order has
    come to neglect weighs more. The paper's posterior puts many positives over one over none: the declared reward here.

    Args:
        train: training rows.
        valid: rows of other users; early stopping looks at the reward's pairs alone.
        context: further features.
        negative: heads that speak against a candidate: their pairs are turned round.
        config: the knobs.
        bar: see `networks.fit`.

    Raises:
        ValueError: `per_time` is no head, or the attention heads do not divide the width.
    """
    if config.per_time and config.per_time not in train.heads:
        raise ValueError(f"per_time must name a head of {list(train.heads)}, got {config.per_time!r}")
    if config.width % config.attention_heads:
        raise ValueError(f"attention_heads must divide width = {config.width}, got {config.attention_heads}")
    torch.manual_seed(config.seed)
    scaling = Scaling.fit(train.columns, train.heads, context, negative)
    net = ListwiseFusion.network(scaling, config)
    x = torch.from_numpy(features(scaling, train.columns, train.requests).astype(np.float32))
    held = torch.from_numpy(features(scaling, valid.columns, valid.requests).astype(np.float32))
    priors = _priors(train, scaling, config)
    gains = [place_within(prior, train.requests) for prior in priors]
    targets = [torch.from_numpy(gain.astype(np.float32)) for gain in gains]
    worth, held_worth = (torch.from_numpy(data.reward.astype(np.float32)) for data in (train, valid))
    evolving, metric = torch.ones(len(train.heads)), np.zeros(0)

    def posterior(inputs: Tensor, reward: Tensor, batch: Positions) -> tuple[Tensor, Tensor, Tensor]:
        rows = torch.from_numpy(batch)
        present = rows != NONE
        scores = net(inputs[rows], present)
        return pairwise_loss(scores, reward[rows], present), scores, present

    def training(batch: Positions) -> Tensor:
        loss, scores, present = posterior(x, worth, batch)
        if config.prior:
            rows = torch.from_numpy(batch)
            heads = [pairwise_loss(scores, head[rows], present, weighted=False) for head in targets]
            loss = loss + config.prior * (evolving * torch.stack(heads)).mean()
        return loss

    def evolve() -> None:
        nonlocal evolving, metric
        if not config.prior:
            return
        net.eval()
        scores = scored(net, x, train.requests, config.pairs)
        now = np.array([ndcg(scores, gain, train.requests, config.k).mean() for gain in gains])
        if len(metric):
            evolving = torch.from_numpy((metric / np.maximum(now, 1e-6)).astype(np.float32))
        metric = now

    fit(
        net,
        (train.requests, training),
        (valid.requests, lambda batch: posterior(held, held_worth, batch)[0]),
        config,
        bar,
        evolve,
    )
    return ListwiseFusion(scaling, config, net)


def _priors(data: Requests, scaling: Scaling, config: ListwiseConfig) -> list[Floats]:
    """What each head would sort by `[N]`."""
    z, _ = scaling.inputs(data.columns)  # turned round where negative, and logarithms: a ratio is a difference
    priors = list(z.T)
    if config.per_time:
        watch = scaling.heads.index(config.per_time)
        logs = z * scaling.stds  # their means are the same for all rows
        priors = [z[:, k] if k == watch else logs[:, k] - logs[:, watch] for k in range(len(priors))]
    return priors
