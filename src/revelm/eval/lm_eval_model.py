"""The model ``revelm`` of lm-evaluation-harness: whatever its tasks ask, of a diffusion model, through our engine.

``generate_until`` decodes with continuous batching, so that no answer depends on what else is asked. ``loglikelihood``
is the lower bound of ``revelm.objectives.likelihood``, not the likelihood itself: fit to compare choices and models
under the same estimator, not with numbers of autoregressive models. Importing this file registers the model; the extra
``eval`` brings the harness.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.models.utils import postprocess_generated_text, truncate_tokens
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window, warning_once
from tqdm import tqdm

from revelm.core.config import parse_config
from revelm.core.seeds import derive_seed
from revelm.core.types import require_diffusion
from revelm.decoding.sampling import Sampling
from revelm.decoding.static import Static
from revelm.engine.engine import Engine
from revelm.engine.named_caches import cache_for
from revelm.engine.request import room_behind
from revelm.eval.lm_eval_request import LmEvalSpec, Wish, read_wish
from revelm.models.blocks import decoding_family, decoding_model
from revelm.models.load import load_model, load_tokenizer, read_family, resolve_checkpoint
from revelm.objectives.batch import Text
from revelm.objectives.likelihood import loglikelihood
from revelm.rollout.collect import read_completion
from revelm.trajectories.record import Trajectory

logger = logging.getLogger(__name__)

PIECE = 64
"""Likelihoods between two looks at the cache of the harness."""


@register_model("revelm")
class RevelmLM(TemplateLM):
    """A checkpoint as the harness sees models. ``pretrained`` and ``options``: see ``LmEvalSpec``.

    ValueError names a wrong option; for autoregressive models, use the harness's own ``hf``.
    """

    def __init__(self, pretrained: str, **options: Any) -> None:
        super().__init__()
        self.spec = parse_config(LmEvalSpec, {"pretrained": pretrained, **options})
        self.spec.warn_of_batches()
        folder = resolve_checkpoint(pretrained)
        family = read_family(folder)
        require_diffusion(family)
        self.sampling = self.spec.setting().sampling()
        self.cache = cache_for(decoding_family(family, self.spec.block_size), self.spec.cache)
        self.tokenizer = load_tokenizer(folder)
        model = load_model(folder, dtype=self.spec.dtype, device=self.spec.device)
        self.model = decoding_model(model, self.spec.block_size)
        self._device = self.model.device
        self._tokens = self._forwards = 0

    @property
    def max_length(self) -> int:
        """Positions of a sequence, in whole blocks."""
        room = room_behind(0, self.model.family)
        return min(room, self.spec.max_length or room)

    @property
    def eot_token_id(self) -> int:
        """The token that ends a text."""
        end = self.tokenizer.eos_token_id
        return int(self.model.family.stop_ids[0] if end is None else end)

    @property
    def prefix_token_id(self) -> int:
        """What stands before a text without context: the token that begins one, or else ends one."""
        first = self.tokenizer.bos_token_id
        return self.eot_token_id if first is None else int(first)

    @property
    def tokenizer_name(self) -> str:
        """By which the harness tells cached prompts apart."""
        return self.spec.pretrained.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Ids of ``string`` as it stands; a special token that it spells, as chat templates do, is that token."""
        return list(self.tokenizer.encode(string, add_special_tokens=bool(add_special_tokens)))

    def apply_chat_template(self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True) -> str:
        """The turns as text, up to where the answer begins or, without ``add_generation_prompt``, goes on."""
        return str(
            self.tokenizer.apply_chat_template(
                chat_history,
                tokenize=False,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=not add_generation_prompt,
            )
        )

    def get_model_info(self) -> dict[str, Any]:
        """What the results file says of how answers were made."""
        made = {"generated_tokens": self._tokens, "generated_forwards": self._forwards}
        speed = {"tokens_per_forward": self._tokens / self._forwards} if self._forwards else {}
        return {"revelm": {**self.spec.model_dump(mode="json"), **made, **speed}}

    def generate_until(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[str]:
        """One answer per request, cut before its first stop string (and behind ``think_end_token``).

        A prompt that is too long loses its beginning. The seed of an answer comes from (``seed``, task, document, which
        repetition). ValueError for settings that cannot be.
        """
        wishes = [self._wish(request, seed) for request, seed in zip(requests, self._seeds(requests), strict=True)]
        prompts = [self._fitted(request.args[0], wish) for request, wish in zip(requests, wishes, strict=True)]
        texts: dict[int, str] = {}
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Answers") as bar:

            def keep(index: int, trajectory: Trajectory) -> None:
                texts[index] = self._text(trajectory, wishes[index])
                self.cache_hook.add_partial("generate_until", requests[index].args, texts[index])
                bar.update()

            self._engine().generate(prompts, [wish.sampling for wish in wishes], on_finish=keep)
        return [texts[index] for index in range(len(requests))]

    def loglikelihood_rolling(self, requests: Sequence[Instance], disable_tqdm: bool = False) -> list[float]:
        """The bound on log p of whole texts, in windows of ``max_length`` behind ``prefix_token_id``, in nats.

        Every token is hidden in one window; those of the last window see as many before them as there is room for.
        """
        found: list[float] = []
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Texts") as bar:
            for start in range(0, len(requests), PIECE):
                piece = requests[start : start + PIECE]
                windows = [self._windows(*request.args) for request in piece]
                bounds = iter(self._bounds([sample for own in windows for sample in own]))
                for request, own in zip(piece, windows, strict=True):
                    found.append(sum(next(bounds) for _ in own))
                    self.cache_hook.add_partial("loglikelihood_rolling", request.args, found[-1])
                bar.update(len(piece))
        return found

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """(bound in nats, whether greedy decoding of one token per step gives just this) of each continuation."""
        found: list[tuple[float, bool]] = []
        with tqdm(total=len(requests), disable=disable_tqdm, desc="Likelihoods") as bar:
            for start in range(0, len(requests), PIECE):
                piece = requests[start : start + PIECE]
                samples = [self._sample(context, continuation) for _, context, continuation in piece]
                results = list(zip(self._bounds(samples), self._are_greedy(samples), strict=True))
                for (words, _, _), result in zip(piece, results, strict=True):
                    self.cache_hook.add_partial("loglikelihood", words, result)
                found += results
                bar.update(len(piece))
        return found

    def _engine(self) -> Engine:
        """Its memory lasts as long as one call."""
        return Engine(self.model, self.tokenizer, num_slots=self.spec.num_slots, cache=self.cache)

    def _wish(self, request: Instance, seed: int) -> Wish:
        return read_wish(request.args[1], self.spec, self.tokenizer, seed=seed)

    def _seeds(self, requests: Sequence[Instance]) -> list[int]:
        """One for each request; equal requests are told apart by counting."""
        seen: Counter[tuple[str, int, int]] = Counter()
        seeds = []
        for request in requests:
            key = (request.task_name or "", -1 if request.doc_id is None else request.doc_id, request.idx)
            seeds.append(derive_seed(self.spec.seed, "lm_eval", *key, seen[key]))
            seen[key] += 1
        return seeds

    def _fitted(self, context: str, wish: Wish) -> list[int]:
        """Ids of a prompt that leaves room for its answer."""
        count, room = wish.sampling.max_new_tokens or 1, self.max_length
        if count >= room:
            raise ValueError(f"max_gen_toks is {count}, but the model has {room} positions; give --gen_kwargs less")
        return self._cut(self.tok_encode(context) or [self.prefix_token_id], room - count)

    def _cut(self, context: list[int], room: int) -> list[int]:
        """The last ``room`` tokens."""
        if len(context) > room:
            warning_once(logger, f"contexts of more than {room} tokens lose their beginning")
        return truncate_tokens(context, room)

    def _text(self, trajectory: Trajectory, wish: Wish) -> str:
        self._tokens += trajectory.num_tokens
        self._forwards += trajectory.num_forwards
        text = read_completion(self.tokenizer, trajectory).text
        return postprocess_generated_text(text, list(wish.stop_strings), self.spec.think_end_token)

    def _windows(self, text: str) -> list[Text]:
        pairs = get_rolling_token_windows(self.tok_encode(text), self.prefix_token_id, self.max_length - 1, 1)
        return [self._sample(*make_disjoint_window(pair)) for pair in pairs]

    def _sample(self, context: Sequence[int], continuation: Sequence[int]) -> Text:
        """What is scored. The masks come from the context, so that all choices behind it see the same ones."""
        room = self.max_length - len(continuation)
        if room < 1:
            raise ValueError(
                f"a continuation has {len(continuation)} tokens; the model has {self.max_length} positions"
            )
        known = self._cut(list(context), room)
        key = derive_seed("context", ",".join(map(str, known)))
        return Text(np.array([*known, *continuation], dtype=np.int64), len(known), key)

    def _bounds(self, samples: Sequence[Text]) -> list[float]:
        """In nats; nothing at all is certain."""
        scored = [sample for sample in samples if sample.prompt_length < len(sample.ids)]
        found = loglikelihood(
            self.model,
            scored,
            estimator=self.spec.estimator,
            num_samples=self.spec.num_samples,
            seed=self.spec.seed,
            max_positions=self.spec.max_positions,
        )
        values = iter(found)
        return [next(values).value if sample.prompt_length < len(sample.ids) else 0.0 for sample in samples]

    def _are_greedy(self, samples: Sequence[Text]) -> list[bool]:
        """Whether each continuation is what the model would write itself; equal questions are asked once."""
        asked = {_question(sample): sample for sample in samples if sample.prompt_length < len(sample.ids)}
        prompts = [sample.ids[: sample.prompt_length] for sample in asked.values()]
        settings = [self._greedy(len(sample.ids) - sample.prompt_length) for sample in asked.values()]
        written: Iterable[Trajectory] = self._engine().generate(prompts, settings) if prompts else ()
        answers: Mapping[Any, Any] = {key: one.response_ids for key, one in zip(asked, written, strict=True)}
        return [
            sample.prompt_length == len(sample.ids)
            or bool(np.array_equal(answers[_question(sample)], sample.ids[sample.prompt_length :]))
            for sample in samples
        ]

    def _greedy(self, count: int) -> Sampling:
        return Sampling(
            temperature=0.0,
            rule=Static(),
            max_new_tokens=count,
            block_size=self.sampling.block_size,
            ignore_eos=True,
        )


def _question(sample: Text) -> tuple[bytes, int]:
    return sample.ids[: sample.prompt_length].tobytes(), len(sample.ids)
