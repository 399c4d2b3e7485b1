"""
The one workflow class of a worker: it drives every definition, under its own name.
"""

from __future__ import annotations

from collections.abc import Sequence

from temporalio import workflow
from temporalio.common import RawValue, VersioningBehavior

from durable.temporal._driving.driver import Driver
from durable.temporal._limits.wire import GRANTED
from durable.temporal._setup.setup import setup_here
from durable.temporal._wire.answers import ANSWER, How
from durable.temporal._wire.items import CHAPTERS, ITEMS, STREAM, items_in, page_text
from durable.temporal._wire.payloads import ASK, unpacked, unpacked_text


@workflow.defn(dynamic=True)
class RunWorkflow:
    """A run, as the SDK calls it."""

    @workflow.init
    def __init__(self, args: Sequence[RawValue]) -> None:
        self._driver = Driver(setup_here(), args)

    @workflow.dynamic_config
    def config(self) -> workflow.DynamicWorkflowConfig:
        """That it stays with the code that it began with, where workers have versions."""
        pinned = setup_here().pins_runs
        return workflow.DynamicWorkflowConfig(
            versioning_behavior=VersioningBehavior.PINNED if pinned else VersioningBehavior.UNSPECIFIED
        )

    @workflow.run
    async def run(self, _args: Sequence[RawValue]) -> RawValue:
        """Drive it to its end; its value."""
        return await self._driver.drive()

    @workflow.signal(dynamic=True)
    def on_signal(self, name: str, args: Sequence[RawValue]) -> None:
        """A signal of the user's."""
        self._driver.signalled(name, args)

    @workflow.signal(name="durable.pause")
    def on_pause(self) -> None:
        """As `Run.pause`."""
        self._driver.pause()

    @workflow.signal(name="durable.resume")
    def on_resume(self) -> None:
        """As `Run.resume`."""
        self._driver.resume()

    @workflow.signal(name="durable.resolve")
    def on_resolve(self, told: RawValue) -> None:
        """As `Run.resolve`."""
        self._driver.resolve(unpacked_text(told))

    @workflow.signal(name="durable.attributes")
    def on_attributes(self, values: RawValue) -> None:
        """What a step has published."""
        self._driver.publish(unpacked(values))

    @workflow.signal(name=ITEMS)
    def on_items(self, items: RawValue) -> None:
        """What a step has emitted."""
        self._driver.streams.take(items_in(items))

    @workflow.query(name=STREAM)
    def stream(self, name: str, after: int) -> str:
        """Items of a stream, as `page_text` has them."""
        return page_text(self._driver.streams.page(name, after))

    @workflow.query(name=CHAPTERS)
    def chapters(self) -> str:
        """What a run that continues this one is told of its streams."""
        return "".join(unpacked_text(each) for each in self._driver.streams.carried())

    @workflow.update(name=ASK)
    async def on_ask(self, name: str, request: str, question: RawValue) -> RawValue:
        """A question, called *name*; its answer."""
        return await self._driver.questions.ask(name, request, unpacked(question))

    @workflow.update(name=ANSWER)
    def on_answer(self, token: str, how: How, payload: RawValue) -> None:
        """An answer to a callback, or a sign of life of who is to give it."""
        self._driver.answer(token, how, unpacked(payload))

    @on_answer.validator
    def check_answer(self, token: str, how: How, payload: RawValue) -> None:
        """Refuse what no callback takes, before anything is recorded of it."""
        self._driver.check_answer(token, how, unpacked(payload))

    @workflow.signal(name=GRANTED)
    def on_granted(self, position: str) -> None:
        """A limit has let it in."""
        self._driver.slots.grant(position)

    @workflow.query(name="durable.export")
    def export(self) -> str:
        """Its journal, as the lines of a file."""
        return self._driver.journal.exported()

    @workflow.query(name="durable.why")
    def why(self) -> str:
        """As `Run.why`."""
        return self._driver.why()
