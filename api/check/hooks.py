"""What schemathesis has to know of the service beyond its description: who may do what, what exists, and the rules
that no schema can say. Good requests are corrected; bad ones stay as bad as they were made.
"""

import os
import uuid
from datetime import date
from pathlib import Path

import schemathesis
from hypothesis import strategies
from schemathesis.generation import GenerationMode

# A photo is recognised by its bytes, so any of these files is valid under each name.
for media_type in ("image/jpeg", "image/png", "image/webp", "image/gif"):
    photo = Path(os.environ["PHOTO"]).read_bytes()
    schemathesis.openapi.media_type(media_type, strategies.just(photo))


@schemathesis.auth(refresh_interval=None)
class Callers:
    """Each operation is asked by a caller who may."""

    def get(self, case, context):
        operation = case.operation.definition.raw
        tag, name = operation["tags"][0], operation["operationId"]
        if name == "registerUserV1":
            return os.environ["SERVICE_TOKEN"]
        if tag == "Audit":
            return os.environ["AUDITOR_TOKEN"]
        if tag in ("Proofs", "Events"):
            return os.environ["ADMIN_TOKEN"]
        return os.environ["USER_TOKEN"]

    def set(self, case, data, context):
        case.headers["Authorization"] = f"Bearer {data}"


# Parameters that must not lie beyond the end of a sequence, with a value that exists.
EXISTING = {
    "after": 0,
    "Last-Event-ID": 0,
    "minPosition": 1,
    "Ledger-Min-Position": 1,
    "from": 1,
    "to": 1,
    "size": 1,
    "position": 1,
    "atVersion": 1,
    "atPosition": 1,
}


@schemathesis.hook
def before_call(context, case, kwargs):
    name = case.operation.definition.raw["operationId"]
    if case.query is None:
        case.query = {}
    correct_places(name, case.query, case.headers)
    if case.meta is None or case.meta.generation.mode == GenerationMode.POSITIVE:
        correct_parameters(name, case.query, case.headers)
        if isinstance(case.body, dict):
            correct_body(name, case.body)


def correct_places(name, query, headers):
    """In bad requests, too: for a place that is not there, a read would wait."""
    for place, there in EXISTING.items():
        for values in (query, headers):
            if place in values and is_number(values[place]):
                values[place] = type(values[place])(there)
    # Without a position, a stream begins with the next event, and none comes.
    if name == "streamEventsV1":
        query.setdefault("after", 0)


def correct_parameters(name, query, headers):
    # A page has at most 100 events; the number of lines is unlimited.
    if is_number(query.get("limit")) and int(query["limit"]) > 100:
        query["limit"] = 100
    # Exactly one point in time.
    for other in [key for key in ("atVersion", "atPosition", "at") if key in query][1:]:
        del query[other]
    if "at" in query:
        query["at"] = os.environ["NOW"]
    # `from` before `to`.
    if name == "listEventsV1" and "from" in query and "to" in query:
        query["from"] = query["to"]
    # Words contain letters or digits, and at least one of both parameters is given.
    if name == "searchUsersV1" and ("q" in query or "expertise" not in query):
        query["q"] = "jo"
    # An existing version, and a new key for each command.
    if "If-Match" in headers:
        headers["If-Match"] = "*"
    if "Idempotency-Key" in headers:
        headers["Idempotency-Key"] = str(uuid.uuid4())


def correct_body(name, body):
    if "birthDate" in body and body["birthDate"] is not None:
        body["birthDate"] = date(1995, 6, 15).isoformat()
    if name == "registerUserV1":
        # Both or none, with at most 15 digits.
        if body.get("countryCode") and body.get("phoneNumber"):
            body["countryCode"], body["phoneNumber"] = "90", "5551234567"
        else:
            body.pop("countryCode", None)
            body.pop("phoneNumber", None)


@schemathesis.hook
def filter_failure(context, failure, case, response):
    """What is no failure here."""
    on_purpose = (
        # An unknown language is answered in English; it is not an error.
        "parameter `X-Language` in header",
        # Servers ignore unknown headers (RFC 9110, 5.1).
        "in header - object with unexpected properties",
    )
    return not any(reason in failure.message for reason in on_purpose)


def is_number(value):
    """Whether the service reads it as a position."""
    if isinstance(value, str):
        value = int(value) if value.isascii() and value.isdecimal() else -1
    return type(value) is int and 0 <= value < 2**63
