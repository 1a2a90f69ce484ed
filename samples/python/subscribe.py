#!/usr/bin/env python3
"""Subscribes to Profile Ledger and counts the events of each type, each event exactly once.

JetStream delivers at least once. What makes that exactly once is remembered here, in the same
transaction as the effect: the last version of each user. A service keeps both in its own database.
"""

import argparse
import asyncio
import json
import pathlib
import sqlite3
import sys
from urllib.parse import unquote, urlsplit

import nats
from nats.errors import Error as NatsError
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError

STREAM, SHARDS = "PROFILES", 64
BATCH = 100  # messages of one transaction; the server has no more than these under way
TABLES = """
CREATE TABLE IF NOT EXISTS cursor (start INTEGER, position INTEGER);
CREATE TABLE IF NOT EXISTS users (user TEXT PRIMARY KEY, version INTEGER, event_id TEXT);
CREATE TABLE IF NOT EXISTS counts (type TEXT PRIMARY KEY, events INTEGER);
"""


class Gap(Exception):
    """Going on would skip an event, or handle one of another ledger."""


def envelope(message):
    """The attributes of a CloudEvent in binary mode; `message.data` is then its data, as JSON."""
    headers = message.headers or {}
    if headers.get("content-type") == "application/cloudevents+json":
        return json.loads(message.data)  # a newer ledger's event that does not fit into headers
    return {name[3:]: unquote(value) for name, value in headers.items() if name.startswith("ce-")}


class Lane:
    """The whole stream, or one shard of it: one durable consumer, one state file, events in order."""

    def __init__(self, js, args, shard):
        self.js, self.shard, self.ack_wait = js, shard, args.ack_wait
        self.name = args.durable if shard is None else f"{args.durable}-p{shard:02}"
        self.subject = "profiles.v1.>" if shard is None else f"profiles.v1.p{shard:02}.*"
        # Several workers may have one lane for a while, as when shards move: they share this file.
        self.db = sqlite3.connect(args.state / f"{self.name}.db", isolation_level=None, timeout=30)
        self.db.executescript(TABLES)
        self.new, self.sub = (args.start, args.start - 1), None

    def cursor(self):
        return self.db.execute("SELECT start, position FROM cursor").fetchone() or self.new

    async def run(self):
        while True:
            try:
                if self.sub is None:
                    await self.subscribe()
                await self.step()
            except (NatsError, TimeoutError) as error:
                if isinstance(error, NotFoundError):
                    self.sub = None  # somebody deleted the consumer: it is made again
                print(f"{self.name}: NATS is away, or refuses ({error!r}), trying again", file=sys.stderr)
                await asyncio.sleep(1)

    async def subscribe(self):
        """The durable consumer lives on the server; any worker goes on where the last one was."""
        await self.look(await self.js.stream_info(STREAM), None)
        is_new = self.db.execute("SELECT * FROM cursor").fetchone() is None
        try:
            info = await self.js.consumer_info(STREAM, self.name)
            if is_new and info.ack_floor.consumer_seq > 0:
                raise Gap(f"{self.name} was read before, but what was made of it is not in this state")
        except NotFoundError:
            config = ConsumerConfig(
                name=self.name, durable_name=self.name, filter_subject=self.subject, ack_policy=AckPolicy.EXPLICIT,
                ack_wait=self.ack_wait, max_ack_pending=BATCH,
                deliver_policy=DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self.cursor()[1] + 1)
            await self.js.add_consumer(STREAM, config)
        if is_new:
            self.db.execute("INSERT INTO cursor SELECT ?, ? WHERE NOT EXISTS (SELECT * FROM cursor)", self.new)
        self.sub = await self.js.pull_subscribe_bind(durable=self.name, stream=STREAM)

    async def step(self):
        try:
            messages = await self.sub.fetch(BATCH, timeout=1)
        except TimeoutError:
            stream = await self.js.stream_info(STREAM)
            return await self.look(stream, await self.js.consumer_info(STREAM, self.name))
        lines, handled, missing = self.handle(messages)
        if lines:
            print("\n".join(lines), flush=True)
        for message in messages[:handled]:  # committed, so the server may forget them
            await message.ack()
        if missing:
            await self.wait_for(missing, envelope(messages[handled]))

    def handle(self, messages):
        """One transaction: effects and what was handled, of all messages up to the first that is early."""
        lines = []
        self.db.execute("BEGIN IMMEDIATE")
        with self.db:
            for handled, message in enumerate(messages):
                event = envelope(message)
                position, version = int(event["sequence"]), int(event["streamversion"])
                if position != message.metadata.sequence.stream:
                    raise Gap(f"sequence {message.metadata.sequence.stream} holds position {position}")
                known = self.known(event)
                line = f"{position} {version} {event['type']} {event['subject']}"
                if known and version <= known[0]:
                    if version == known[0] and event["id"] != known[1]:
                        raise Gap(f"position {position} is another event than the one handled: the ledger was replaced")
                    lines.append(f"duplicate {line}")
                elif missing := self.missing_before(event):
                    return lines, handled, missing
                elif position >= self.cursor()[0]:
                    lines.append(line)
                    self.apply(event, position, version)
        return lines, len(messages), None

    def apply(self, event, position, version):
        count = "INSERT INTO counts VALUES (?, 1) ON CONFLICT DO UPDATE SET events = events + 1"
        self.db.execute(count, (event["type"],))  # the effect: done twice it would be wrong
        self.db.execute("INSERT OR REPLACE INTO users VALUES (?, ?, ?)", (event["subject"], version, event["id"]))
        self.db.execute("UPDATE cursor SET position = max(position, ?)", (position,))

    def known(self, event):
        return self.db.execute("SELECT version, event_id FROM users WHERE user = ?", (event["subject"],)).fetchone()

    def missing_before(self, event):
        """The position that has to be handled before this event and was not, if there is one.

        In the whole stream it is the position before. In a shard positions jump; there each event names
        the one of its user before it, so a hole shows at the user's next event.
        """
        start, position = self.cursor()
        before, known = int(event.get("prevposition", 0)), self.known(event)
        if self.shard is None and int(event["sequence"]) > position + 1:
            return position + 1
        is_next = int(event["streamversion"]) == known[0] + 1 if known else before < start
        return None if is_next else before

    async def wait_for(self, missing, event):
        """An early event: the one before it is with a worker that died, or lost on its way, or is gone.

        Nothing after it is handled, or two events of a user could change places. When ack_wait is over the
        server sends all that was not acknowledged again, in order, before anything else.
        """
        info = await self.js.consumer_info(STREAM, self.name)
        if self.missing_before(event) == missing:  # else another worker of this lane has just handled it
            await self.judge(missing, info)
            await asyncio.sleep(info.config.ack_wait + 0.1)

    async def judge(self, missing, info):
        """Raises if an event that is missing here will never come."""
        try:
            await self.js.get_msg(STREAM, missing)
        except NotFoundError:
            first = (await self.js.stream_info(STREAM)).state.first_seq
            raise Gap(f"position {missing} is not in the stream, which begins at {first}") from None
        if missing <= info.ack_floor.stream_seq:
            raise Gap(f"position {missing} was acknowledged, but is not in this state: an older copy of it?")

    async def look(self, stream, consumer):
        """Compares what was handled with what the stream has: at the start, and whenever nothing comes."""
        first, last = stream.state.first_seq, stream.state.last_seq
        position = self.cursor()[1]
        if last < position:
            raise Gap(f"the stream ends at {last}, before position {position}: it was made anew, or is not filled yet")
        if first > position + 1:
            raise Gap(f"positions {position + 1} to {first - 1} have left the stream")
        if consumer and consumer.num_pending == 0 and consumer.num_ack_pending == 0 and position < last:
            if self.shard is None:
                return await self.judge(position + 1, consumer)
            self.db.execute("UPDATE cursor SET position = max(position, ?)", (last,))  # the rest is of others


async def tell(error):
    print(f"NATS: {error!r}", file=sys.stderr)


async def main(args):
    args.state.mkdir(parents=True, exist_ok=True)
    servers = args.nats_url.split(",")
    url = urlsplit(servers[0])
    login = {"user": unquote(url.username), "password": unquote(url.password or "")} if url.username else {}
    client = await nats.connect(servers, name=args.durable, max_reconnect_attempts=-1, error_cb=tell, **login)
    js = client.jetstream()
    async with asyncio.TaskGroup() as lanes:
        for shard in args.shards:
            lanes.create_task(Lane(js, args, shard).run())


def position(text):
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError("a position is 1 or more")


def shards(text):
    """Worker i of n takes every n-th shard. One consumer a shard works on every version of the server."""
    worker, _, workers = text.partition("/")
    if worker.isdigit() and workers.isdigit() and int(worker) < int(workers) <= SHARDS:
        return range(int(worker), SHARDS, int(workers))
    raise argparse.ArgumentTypeError(f"i/n: worker i, from 0, of n, at most {SHARDS}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Counts the events of Profile Ledger by type.")
    parser.add_argument("--nats-url", default="nats://127.0.0.1:4222", help="nats://[user:password@]host[:port],…")
    parser.add_argument("--durable", default="sample", help="name of the durable consumer")
    parser.add_argument("--from", dest="start", type=position, default=1, help="the first position, for a new durable")
    parser.add_argument("--shards", type=shards, default=[None], help="i/n: the part of worker i of n; else all in one")
    parser.add_argument("--state", type=pathlib.Path, default="state", help="folder of what was handled")
    parser.add_argument("--ack-wait", type=float, default=30, help="seconds until a message comes again")
    try:
        asyncio.run(main(parser.parse_args()))
    except* Gap as gaps:
        sys.exit("\n".join(f"gap: {gap}" for gap in gaps.exceptions))
    except* KeyboardInterrupt:
        pass
