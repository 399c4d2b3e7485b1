"""durable"""
from durable._core.definition import call, job, step, transaction, workflow
from durable._core.flow import current, logger, now, patched, random, set_attributes, uuid4
from durable._core.ops import Flow, Return, Settled, Winner, by_arguments, continue_as, for_each, gather, race, settle, sleep, sleep_until, start, timeout, wait_for
from durable._core.retry import Retry
from durable.errors import Fatal, RetryAfter
