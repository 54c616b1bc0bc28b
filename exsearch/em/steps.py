"""The steps of a run, each of them callable alone.

`Loop` takes them one after another in one process; the pipeline gives each a pod of its
own. Either way a step finds its inputs in the run folder, is skipped when it is done, and
goes on where it was cut short.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import Setting
from exsearch.agent.model_files import model_digest
from exsearch.agent.runner import greedy, run_questions, sampled
from exsearch.config import RunConfig, TrainingConfig
from exsearch.em import questions as choose
from exsearch.em.engine import Engine
from exsearch.em.layout import RunFolder, Stage, iteration_name
from exsearch.em.ledger import Ledger, Voice
from exsearch.em.mstep import NOTHING_REACHED, mix_in_warmup, train
from exsearch.em.outcome import Outcome
from exsearch.em.resolve import SHAPES_INDEX
from exsearch.em.rollouts import of_shard
from exsearch.em.statistics import EStepStatistics
from exsearch.em.stopping import reason_to_stop
from exsearch.em.warmup import make_warmup
from exsearch.em.weighing import weigh
from exsearch.errors import InputError
from exsearch.evaluation.files import read_summary
from exsearch.evaluation.model import evaluate_model
from exsearch.evaluation.summary import Summary
from exsearch.records import Question
from exsearch.retrieval.info import INFO, IndexInfo
from exsearch.retrieval.retriever import Retriever, open_retriever
from exsearch.storage import AppendLog, digest_bytes, digest_file, exists, join, write_atomic
from exsearch.training.job import TrainingResult

Train = Callable[[RunConfig, TrainingConfig, str, Stage], TrainingResult]
"""Carries out a training: here in processes of this machine, or elsewhere as a job."""


@dataclass(frozen=True)
class Model:
    """A checkpoint and the stage that made it."""

    stage: str
    path: str


class Steps:
    """The steps of the run that `config` describes.

    Every step raises `InputError` where its settings, data or model cannot be used or are
    not those it was begun with, and `ExSearchError` where it failed: call it again to go on.
    """

    def __init__(self, config: RunConfig, voice: Voice, trainer: Train = train) -> None:
        self.config, self.voice = config, voice
        self.folder = RunFolder(config.run)
        self.ledger = Ledger(config, voice)
        self.engine = Engine(config, voice.note)
        self._trainer = trainer
        self._retriever: Retriever | None = None

    async def close(self) -> None:
        """Stop the engine and let go of the index."""
        await self.engine.release()
        if self._retriever is not None:
            await self._retriever.close()

    # --- what the steps work with

    @cached_property
    def test_questions(self) -> list[Question]:
        data = self.config.data
        return choose.some(self._load(data.test, "test"), data.eval_limit, self.config.seed)

    @cached_property
    def train_questions(self) -> list[Question]:
        return self._load(self.config.data.train, "train") if self.config.em.iterations else []

    @property
    def base(self) -> Model:
        return Model("base", self.config.model.path)

    @property
    def start(self) -> Model:
        """The model that the rounds start from: warmed up, where the settings name a warm-up."""
        if not self.config.data.warmup:
            return self.base
        return Model("warmup", self.folder.stage("warmup").checkpoint)

    @property
    def champion(self) -> Model:
        """Whom the gate compares with: a given champion, or the model the rounds start from."""
        given = self.config.gate.champion
        if given == self.base.path:
            return self.base
        return Model("champion", given) if given else self.start

    def before(self, number: int) -> Model:
        """The newest model before round `number`, which samples in it."""
        newest = self.folder.newest_before(number)
        return Model(newest, self.folder.stage(newest).checkpoint) if newest else self.base

    def model_of(self, stage: str) -> Model | None:
        """The model that a stage made; None where it made none of its own.

        Args:
            stage: `base`, `warmup`, `champion` or an iteration's name.
        """
        known = {model.stage: model for model in (self.champion, self.start, self.base)}
        if stage in known:
            return known[stage]
        trained = self.ledger.outputs(f"{stage}/train")
        return Model(stage, trained["checkpoint"]) if trained else None

    def reason_to_stop(self, number: int) -> str | None:
        """Why round `number` is not to be run; None where it is."""
        return reason_to_stop(
            self.ledger.outputs, number, self.config.em.patience, self.config.gate.metric
        )

    # --- the steps

    def check(self) -> None:
        """Read all questions and the model's files, so that what is wrong is said first."""
        every = {q.id: q for q in [*self.train_questions, *self.test_questions]}
        model_digest(self.config.model.path)
        lines = (f"{q.to_line()}\n" for q in every.values())
        write_atomic(self.folder.path("questions.jsonl"), lines)

    @property
    def index_folder(self) -> str:
        return self.config.retrieval.index or self.folder.path("index")

    async def index(self) -> None:
        """Build the index, unless a service or a finished index is given."""
        from exsearch.retrieval.index import build_index

        retrieval, corpus = self.config.retrieval, self.config.data.corpus
        if retrieval.url or (retrieval.index and exists(join(retrieval.index, INFO))):
            return

        async def work() -> dict[str, Any]:
            info = build_index(corpus, self.index_folder, retrieval)
            return {"passages": info.passages, "digest": info.digest}

        shape = retrieval.model_dump(include=SHAPES_INDEX)
        await self.ledger.once("index", {"corpus": digest_file(corpus), "settings": shape}, work)

    def encode(self, shard: int, shards: int) -> int:
        """Encode the corpus's parts that are this shard's; returns how many were left to do."""
        from exsearch.retrieval.index import encode_part

        retrieval = self.config.retrieval
        if retrieval.url or exists(join(self.index_folder, INFO)):
            self.voice.note("the index is there already")
            return 0
        count = encode_part(self.config.data.corpus, self.index_folder, retrieval, (shard, shards))
        self.voice.note(f"encoded {count} parts")
        return count

    def index_facts(self) -> dict[str, Any]:
        """What is worth knowing of the finished index; nothing of one behind a service."""
        if self.config.retrieval.url:
            return {}
        info = IndexInfo.load(self.index_folder)
        return info.model_dump(include={"digest", "corpus", "checkpoint", "passages", "bytes"})

    async def demonstrate(self) -> int:
        """Make the warm-up's demonstrations and examples; returns how many examples."""
        data = self.config.data
        if not data.warmup:
            return 0
        stage = self.folder.stage("warmup")

        async def work() -> dict[str, Any]:
            chat = ChatFormat.load(self.base.path)
            retriever = self._open_retriever()
            return await make_warmup(self.config, stage, chat, retriever, self.voice.note)

        inputs = {
            **self._episodes(self._load(data.warmup, "warmup")),
            "limit": data.warmup_limit,
            "hops": data.warmup_hops,
            "missing": data.warmup_missing,
            "min_overlap": data.warmup_min_overlap,
            "seed": self.config.seed,
        }
        outputs = await self.ledger.once("warmup/data", inputs, work)
        return int(outputs["count"])

    async def warm_up(self) -> Model:
        """Tune the base model on the demonstrations, where there are any."""
        if self.config.data.warmup:
            await self._train("warmup", self.base, self.config.sft)
        return self.start

    async def rollout(self, number: int, shard: int = 0, shards: int = 1) -> str:
        """Sample the trajectories of one shard of round `number`; returns the shard's file."""
        model, data = self.before(number), self.config.data
        asked = choose.of_round(self.train_questions, data.train_limit, number, self.config.seed)
        mine = of_shard(asked, shard, shards)
        path = self.folder.iteration(number).shard(shard, shards)

        async def work() -> dict[str, Any]:
            setting = await self._setting(model)
            plan = sampled(self.config, number)
            done = await run_questions(mine, setting, plan, AppendLog(path), self.voice.progress)
            return {"shards": [path], "progress": done.line(), "failures": dict(done.failures)}

        inputs = {
            **self._episodes(mine),
            "model": model_digest(model.path),
            "sampling": self.config.sampling.model_dump(mode="json"),
            "seed": self.config.seed,
        }
        part = "" if shards == 1 else f"-{shard}-of-{shards}"
        await self.ledger.once(f"{iteration_name(number)}/rollout{part}", inputs, work)
        return path

    async def weigh(self, number: int) -> EStepStatistics:
        """Turn the round's rollouts into weights and examples."""
        name, stage = iteration_name(number), self.folder.iteration(number)

        async def work() -> dict[str, Any]:
            by_id = {q.id: q for q in self.train_questions}
            chat = ChatFormat.load(self.before(number).path)
            found = weigh(by_id, stage, chat, self.config.weighing, self.config.seed)
            self.voice.note(f"{name}: {found.line()}")
            share = self.config.em.warmup_share
            if share and self.config.data.warmup:
                mix_in_warmup(stage, self.folder.stage("warmup"), share, self.config.seed)
            return {
                "weights": stage.weights,
                "reached": found.reached > 0,
                "statistics": found.model_dump(mode="json"),
            }

        inputs = {
            "rollout": self.ledger.fingerprints(f"{name}/rollout"),
            "weighing": self.config.weighing.model_dump(mode="json"),
            "warmup_share": self.config.em.warmup_share,
        }
        outputs = await self.ledger.once(f"{name}/weigh", inputs, work)
        return EStepStatistics.model_validate(outputs["statistics"])

    async def align(self, number: int) -> Model | None:
        """Tune on the round's weighted examples; None where no question was reached."""
        name = iteration_name(number)
        if not self.ledger.outputs(f"{name}/weigh").get("reached", True):
            self.voice.note(f"{name}: {NOTHING_REACHED}")
            return None
        begin = self.start if self.config.em.from_base else self.before(number)
        return await self._train(name, begin, self.config.align)

    async def evaluate(self, model: Model) -> Summary:
        """Measure a model on the test questions."""
        return await self._measure(model, self.test_questions, "eval")

    async def evaluate_on_dev(self, model: Model) -> Summary:
        """Measure a model on the dev questions, for early stopping only."""
        data = self.config.data
        asked = choose.some(self._load(data.dev, "dev"), data.eval_limit, self.config.seed)
        return await self._measure(model, asked, "dev")

    def conclude(self) -> dict[str, Any]:
        """Compare the newest model with the champion, decide, and write `summary.json`."""
        self.ledger.note_settings()
        outcome = Outcome(self.config)
        candidate = self.before(self.config.em.iterations + 1)
        names = [iteration_name(n + 1) for n in range(self.config.em.iterations)]
        rounds = [name for name in names if exists(self.folder.stage(name).checkpoint)]
        for name in dict.fromkeys(["base", self.start.stage, self.champion.stage, *rounds]):
            stage = self.folder.stage(name)
            summary = read_summary(stage.evaluation)
            if summary is not None:
                outcome.add(summary, stage)
        return outcome.write(self.folder, "base", self.start, self.champion, candidate)

    # --- how

    def _load(self, files: tuple[str, ...], purpose: str) -> list[Question]:
        return choose.load_questions(files, self.config.data, purpose, self.voice.note)

    def _open_retriever(self) -> Retriever:
        if self._retriever is None:
            self._retriever = open_retriever(self.config)
        return self._retriever

    async def _setting(self, model: Model) -> Setting:
        policy = await self.engine.use(model.path)
        return Setting(policy, self._open_retriever(), self.config.agent)

    def _episodes(self, questions: list[Question]) -> dict[str, Any]:
        """What episodes on these questions depend on, beside the model and the sampling."""
        url = self.config.retrieval.url
        return {
            "questions": digest_bytes(*(q.to_line().encode() for q in questions)),
            "agent": self.config.agent.model_dump(mode="json"),
            "index": url or IndexInfo.load(self.index_folder).digest,
        }

    async def _train(self, name: str, begin: Model, how: TrainingConfig) -> Model:
        stage = self.folder.stage(name)

        async def work() -> dict[str, Any]:
            await self.engine.release()
            result = self._trainer(self.config, how, begin.path, stage)
            self.voice.note(
                f"{name}: {result.examples.used} examples, {result.steps} steps, "
                f"loss {result.loss_first:.3f} → {result.loss_last:.3f}"
            )
            return {"checkpoint": result.checkpoint, "loss": result.loss_last}

        inputs = {
            "model": model_digest(begin.path),
            "examples": digest_file(stage.examples),
            "settings": how.model_dump(mode="json"),
            "max_tokens": self.config.model.max_tokens,
            "dtype": self.config.model.dtype,
            "seed": self.config.seed,
        }
        outputs = await self.ledger.once(f"{name}/train", inputs, work)
        return Model(name, outputs["checkpoint"])

    async def _measure(self, model: Model, asked: list[Question], purpose: str) -> Summary:
        step = f"{model.stage}/{purpose}"
        folder = self.folder.path(model.stage, purpose)

        async def work() -> dict[str, Any]:
            found = await evaluate_model(
                asked,
                await self._setting(model),
                greedy(self.config),
                folder,
                model.stage,
                self.config.evaluation,
                self.voice.progress,
            )
            self.voice.note(f"{step}: EM {found.em:.3f}, F1 {found.f1:.3f}")
            scores = {"em": found.em, "f1": found.f1, "accuracy": found.accuracy}
            return {"evaluation": folder, **scores}

        inputs = {
            **self._episodes(asked),
            "model": model_digest(model.path),
            "score": self.config.evaluation.score_gold,
        }
        await self.ledger.once(step, inputs, work)
        summary = read_summary(folder)
        if summary is None:
            raise InputError(f"{folder} lost its summary; remove {folder} and evaluate again")
        return summary
