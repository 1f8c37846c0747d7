"""The committed prefixes that a model has read, and the KV cache that holds them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

    from uhlm_sim.tokens.model_pair import LanguageModel


class CommittedPrefixes:
    """What one model has read: a batch of rows, each a committed prefix, with its KV cache and next logits.

    A draft enters only once it is committed, so a rejected one never leaves a trace in the cache. Rows are
    padded on the left; the mask hides the padding and position ids count from each row's own first token.
    """

    def __init__(self, model: "LanguageModel", prompts: Sequence[Sequence[int]], width: int) -> None:
        """Read the prompts (ids, any lengths). ``width`` is the number of logits to keep."""
        import torch
        import transformers

        self._network, self._width = model.network, width
        self._device = model.network.device
        longest = max(len(ids) for ids in prompts)
        tokens = torch.zeros((len(prompts), longest), dtype=torch.long)
        mask = torch.zeros_like(tokens)
        for row, ids in enumerate(prompts):
            tokens[row, longest - len(ids) :] = torch.tensor(list(ids))
            mask[row, longest - len(ids) :] = 1
        self._mask = mask.to(self._device)
        self._positions = (self._mask.cumsum(dim=1) - 1).clamp(min=0)
        self._cache = transformers.DynamicCache(config=model.network.config)
        self._forward(tokens.to(self._device))

    def __len__(self) -> int:
        return int(self._mask.shape[0])

    def commit(self, parents: NDArray[np.integer], tokens: NDArray[np.integer]) -> None:
        """Let row i be row parents[i] followed by tokens[i]; rows that are nobody's parent are forgotten."""
        import torch

        if len(parents) != len(self) or (parents != np.arange(len(self))).any():
            chosen: Any = torch.as_tensor(np.asarray(parents), dtype=torch.long, device=self._device)
            self._cache.reorder_cache(chosen)  # which the states of linear attention have too
            self._mask, self._positions = self._mask[chosen], self._positions[chosen]
        column = torch.as_tensor(np.asarray(tokens), dtype=torch.long, device=self._device)[:, None]
        self._mask = torch.cat([self._mask, torch.ones_like(column)], dim=1)
        self._positions = self._positions[:, -1:] + 1
        self._forward(column)

    def _forward(self, tokens: "torch.Tensor") -> None:
        import torch

        with torch.inference_mode():
            output = self._network(
                input_ids=tokens,
                attention_mask=self._mask,
                position_ids=self._positions,
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
            logits = output.logits[:, -1, : self._width].to(device="cpu", dtype=torch.float32)
        self.logits: NDArray[np.float32] = logits.numpy()
