"""The whole method: warm-up, then rounds of E-step and M-step, measured, gated, written down.

    exsearch em --config run.yaml

Each step is skipped when the run's lineage says that it finished with the same
inputs and settings, and resumes inside itself when it was cut short. So the same
command starts a run and goes on with one.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from exsearch import config as settings
from exsearch.agent.chat import ChatFormat
from exsearch.agent.episode import Setting
from exsearch.agent.model_files import model_digest
from exsearch.agent.policies import Policy
from exsearch.agent.runner import Progress, greedy, run_questions, sampled
from exsearch.config import RunConfig
from exsearch.em import questions as choose
from exsearch.em.engine import Engine
from exsearch.em.layout import RunFolder, Stage, iteration_name
from exsearch.em.mstep import NOTHING_REACHED, mix_in_warmup, train
from exsearch.em.outcome import Outcome
from exsearch.em.statistics import EStepStatistics
from exsearch.em.warmup import make_warmup
from exsearch.em.weighing import weigh
from exsearch.errors import InputError
from exsearch.evaluation.files import read_summary
from exsearch.evaluation.model import evaluate_model
from exsearch.evaluation.summary import Summary
from exsearch.records import Question, canonical_json
from exsearch.retrieval.retriever import Retriever, open_retriever
from exsearch.storage import AppendLog, Lineage, digest_bytes, digest_file, write_atomic

SHAPES_INDEX = {"checkpoint", "nbits", "doc_maxlen", "query_maxlen", "dtype"}
"""Retrieval settings that an index depends on."""


class Voice(Protocol):
    """How the loop speaks to whoever watches it."""

    def step(self, title: str) -> None: ...
    def note(self, text: str) -> None: ...
    def progress(self, progress: Progress) -> None: ...


@dataclass(frozen=True)
class Model:
    """A checkpoint and the stage that made it."""

    stage: str
    path: str


class Loop:
    """One run, from its configuration to its summary."""

    def __init__(self, config: RunConfig, voice: Voice) -> None:
        self.config, self.voice = config, voice
        self.run_folder = RunFolder(config.run)
        self.lineage = Lineage(config.run)
        self.engine = Engine(config, voice.note)
        self.retriever: Retriever | None = None
        self.outcome = Outcome(config)

    async def run(self) -> dict[str, Any]:
        """Run everything that is not done yet; returns what `summary.json` holds.

        Raises:
            InputError: the settings, data or model cannot be used, or a step's
                recorded settings are not those of today.
            ExSearchError: a step failed; run again to go on from there.
        """
        try:
            return await self._run()
        finally:
            await self.engine.release()
            if self.retriever is not None:
                await self.retriever.close()

    async def _run(self) -> dict[str, Any]:
        self._prepare()
        base = Model("base", self.config.model.path)
        await self._index()
        await self._evaluate(base)
        start = await self._warmup(base)
        champion = await self._champion(start)
        best, candidate, without_gain = -1.0, start, 0
        current = start
        for number in range(1, self.config.em.iterations + 1):
            trained = await self._round(number, current, start)
            if trained is None:
                self.voice.note(f"stopping in round {number}: {NOTHING_REACHED}")
                break
            current = candidate = trained
            if self.config.em.patience:
                score = await self._dev_score(current)
                without_gain = 0 if score > best else without_gain + 1
                best = max(best, score)
                if without_gain == self.config.em.patience:
                    self.voice.note(
                        f"stopping after round {number}: no gain on the dev questions "
                        f"in {without_gain} rounds"
                    )
                    break
        self._note_settings()
        return self.outcome.write(self.run_folder, base.stage, start, champion, candidate)

    def _prepare(self) -> None:
        data = self.config.data
        self.test = choose.some(self._load(data.test, "test"), data.eval_limit, self.config.seed)
        self.train_questions = self._load(data.train, "train") if self.config.em.iterations else []
        model_digest(self.config.model.path)  # an unreadable model is an error before any work
        every = {q.id: q for q in [*self.train_questions, *self.test]}
        write_atomic(
            self.run_folder.path("questions.jsonl"), (f"{q.to_line()}\n" for q in every.values())
        )

    def _note_settings(self) -> None:
        """Write `run.yaml`: once a step has accepted the settings, never refused ones."""
        write_atomic(self.run_folder.path("run.yaml"), settings.dump(self.config))

    def _load(self, files: Sequence[str], purpose: str) -> list[Question]:
        return choose.load_questions(files, self.config.data, purpose, self.voice.note)

    async def _once(
        self, step: str, inputs: dict[str, Any], work: Callable[[], Awaitable[dict[str, Any]]]
    ) -> None:
        """Do a step unless it is done; refuse to mix it with one done under other settings."""
        fingerprint = digest_bytes(canonical_json(inputs).encode())
        if self.lineage.done(step, fingerprint):
            self.voice.note(f"{step}: done before")
            return
        if step in self.lineage.entries:
            raise InputError(
                f"step {step!r} of {self.config.run} was made with other inputs or settings; "
                f"use another run folder, or remove what it made and its entry in "
                f"{self.lineage.path}"
            )
        self._note_settings()
        self.voice.step(step)
        started = time.monotonic()
        facts = await work()
        self.lineage.record(
            step, fingerprint, time.monotonic() - started, inputs=inputs, outputs=facts
        )

    async def _open_retriever(self) -> Retriever:
        if self.retriever is None:
            self.retriever = open_retriever(self.config)
        return self.retriever

    async def _setting(self, model: Model) -> Setting:
        policy: Policy = await self.engine.use(model.path)
        return Setting(policy, await self._open_retriever(), self.config.agent)

    async def _index(self) -> None:
        from exsearch.retrieval.index import build_index

        retrieval = self.config.retrieval
        if retrieval.url or retrieval.index:
            return

        async def work() -> dict[str, Any]:
            info = build_index(self.config.data.corpus, self.run_folder.path("index"), retrieval)
            return {"passages": info.passages, "digest": info.digest}

        inputs = {
            "corpus": digest_file(self.config.data.corpus),
            "settings": retrieval.model_dump(include=SHAPES_INDEX),
        }
        await self._once("index", inputs, work)

    def _episodes(self, questions: list[Question]) -> dict[str, Any]:
        """What episodes on these questions depend on, beside the model and the sampling."""
        retrieval, built = self.config.retrieval, self.lineage.entries.get("index")
        return {
            "questions": digest_bytes(*(q.to_line().encode() for q in questions)),
            "agent": self.config.agent.model_dump(mode="json"),
            "index": retrieval.url or retrieval.index or (built and built["outputs"]["digest"]),
        }

    async def _evaluate(self, model: Model) -> Summary:
        """Measure on the test questions, for the summary."""
        summary = await self._measure(model, self.test, "eval")
        self.outcome.add(summary, self.run_folder.stage(model.stage))
        return summary

    async def _measure(self, model: Model, asked: list[Question], purpose: str) -> Summary:
        step = f"{model.stage}/{purpose}"
        folder = self.run_folder.path(model.stage, purpose)

        async def work() -> dict[str, Any]:
            summary = await evaluate_model(
                asked,
                await self._setting(model),
                greedy(self.config),
                folder,
                model.stage,
                self.config.evaluation,
                self.voice.progress,
            )
            self.voice.note(f"{step}: EM {summary.em:.3f}, F1 {summary.f1:.3f}")
            return {"evaluation": folder}

        inputs = {
            **self._episodes(asked),
            "model": model_digest(model.path),
            "score": self.config.evaluation.score_gold,
        }
        await self._once(step, inputs, work)
        summary = read_summary(folder)
        assert summary is not None, "the evaluation step has written its summary"
        return summary

    async def _warmup(self, base: Model) -> Model:
        """Tune the base model on gold episodes, where the configuration names any."""
        if not self.config.data.warmup:
            return base
        stage = self.run_folder.stage("warmup")

        async def make() -> dict[str, Any]:
            chat = ChatFormat.load(base.path)
            return await make_warmup(
                self.config, stage, chat, await self._open_retriever(), self.voice.note
            )

        inputs = {
            **self._episodes(self._load(self.config.data.warmup, "warmup")),
            "limit": self.config.data.warmup_limit,
            "hops": self.config.data.warmup_hops,
            "missing": self.config.data.warmup_missing,
            "min_overlap": self.config.data.warmup_min_overlap,
            "seed": self.config.seed,
        }
        await self._once("warmup/data", inputs, make)
        return await self._train("warmup", base, self.config.sft)

    async def _train(self, name: str, start: Model, how: settings.TrainingConfig) -> Model:
        stage = self.run_folder.stage(name)

        async def work() -> dict[str, Any]:
            await self.engine.release()
            result = train(self.config, how, start.path, stage)
            self.voice.note(
                f"{name}: {result.examples.used} examples, {result.steps} steps, "
                f"loss {result.loss_first:.3f} → {result.loss_last:.3f}"
            )
            return {"checkpoint": result.checkpoint}

        inputs = {
            "model": model_digest(start.path),
            "examples": digest_file(stage.examples),
            "settings": how.model_dump(mode="json"),
            "max_tokens": self.config.model.max_tokens,
            "dtype": self.config.model.dtype,
            "seed": self.config.seed,
        }
        await self._once(f"{name}/train", inputs, work)
        model = Model(name, self.lineage.entries[f"{name}/train"]["outputs"]["checkpoint"])
        await self._evaluate(model)
        return model

    async def _champion(self, start: Model) -> Model:
        """Whom the gate compares with: a given champion, or the model the rounds start from."""
        if not self.config.gate.champion:
            return start
        champion = Model("champion", self.config.gate.champion)
        await self._evaluate(champion)
        return champion

    async def _round(self, number: int, current: Model, start: Model) -> Model | None:
        """The next model; None where no question was reached."""
        name = iteration_name(number)
        stage = self.run_folder.iteration(number)
        await self._rollout(name, number, current, stage)
        if not await self._weigh(name, stage, current):
            return None
        return await self._train(
            name, start if self.config.em.from_base else current, self.config.align
        )

    async def _rollout(self, name: str, number: int, model: Model, stage: Stage) -> None:
        data = self.config.data
        asked = choose.of_round(self.train_questions, data.train_limit, number, self.config.seed)

        async def work() -> dict[str, Any]:
            plan = sampled(self.config, number)
            log = AppendLog(stage.shard(0, 1))
            progress = await run_questions(
                asked, await self._setting(model), plan, log, self.voice.progress
            )
            return {"shards": [log.path], "progress": progress.line()}

        inputs = {
            **self._episodes(asked),
            "model": model_digest(model.path),
            "sampling": self.config.sampling.model_dump(mode="json"),
            "seed": self.config.seed,
        }
        await self._once(f"{name}/rollout", inputs, work)

    async def _weigh(self, name: str, stage: Stage, model: Model) -> bool:
        """Whether any question was reached."""

        async def work() -> dict[str, Any]:
            by_id = {q.id: q for q in self.train_questions}
            chat = ChatFormat.load(model.path)
            statistics = weigh(by_id, stage, chat, self.config.weighing, self.config.seed)
            self._tell_estep(name, statistics)
            share = self.config.em.warmup_share
            if share and self.config.data.warmup:
                mix_in_warmup(stage, self.run_folder.stage("warmup"), share, self.config.seed)
            return {"weights": stage.weights, "statistics": statistics.model_dump(mode="json")}

        inputs = {
            "rollout": self.lineage.entries[f"{name}/rollout"]["fingerprint"],
            "weighing": self.config.weighing.model_dump(mode="json"),
            "warmup_share": self.config.em.warmup_share,
        }
        await self._once(f"{name}/weigh", inputs, work)
        done = self.lineage.entries[f"{name}/weigh"]["outputs"]
        return bool(done["statistics"]["reached"])

    def _tell_estep(self, name: str, s: EStepStatistics) -> None:
        marginal = "–" if s.log_marginal is None else f"{s.log_marginal:.2f}"
        self.voice.note(
            f"{name}: log-marginal {marginal}, ESS {s.ess:.2f}, reachability "
            f"{s.reachability:.2f}, reached {s.reached:.2f}, sample accuracy "
            f"{s.sample_accuracy:.2f}, failed {s.failed:.2f}"
        )

    async def _dev_score(self, model: Model) -> float:
        """The gate's metric on the dev questions, for early stopping only."""
        data = self.config.data
        asked = choose.some(self._load(data.dev, "dev"), data.eval_limit, self.config.seed)
        summary = await self._measure(model, asked, "dev")
        return float(getattr(summary, self.config.gate.metric))
