-- The head of the ledger, in one row. An append first moves it by compare-and-swap from the head
-- that its events were decided on, so two appends can never take the same positions.
CREATE TABLE ledger_head (
    only_row    INTEGER PRIMARY KEY CHECK (only_row = 1),
    store_id    TEXT    NOT NULL,
    epoch       INTEGER NOT NULL,
    position    INTEGER NOT NULL,
    recorded_at INTEGER NOT NULL, -- milliseconds since 1970
    appends     INTEGER NOT NULL  -- an append without events does not move the position
) STRICT;

INSERT INTO ledger_head VALUES (1, lower(hex(randomblob(16))), 1, 0, 0, 0);

CREATE TRIGGER ledger_head_never_goes_back BEFORE UPDATE ON ledger_head BEGIN
    SELECT RAISE(ABORT, 'the head of the ledger never goes back')
    WHERE NEW.position < OLD.position OR NEW.recorded_at < OLD.recorded_at OR NEW.epoch < OLD.epoch OR NEW.appends < OLD.appends;
END;

CREATE TRIGGER ledger_head_stays BEFORE DELETE ON ledger_head BEGIN
    SELECT RAISE(ABORT, 'the head of the ledger is never deleted');
END;

-- The ledger. The envelope contains the exact bytes that were hashed; the other columns are for
-- finding an event.
CREATE TABLE events (
    position       INTEGER PRIMARY KEY,
    event_id       TEXT    NOT NULL UNIQUE,
    user_id        TEXT    NOT NULL,
    version        INTEGER NOT NULL,
    event_type     TEXT    NOT NULL,
    schema_version INTEGER NOT NULL,
    recorded_at    INTEGER NOT NULL, -- milliseconds since 1970
    envelope       BLOB    NOT NULL,
    leaf_hash      BLOB    NOT NULL CHECK (length(leaf_hash) = 32),
    UNIQUE (user_id, version)
) STRICT;

CREATE TRIGGER events_are_never_changed BEFORE UPDATE ON events BEGIN
    SELECT RAISE(ABORT, 'events are never changed');
END;

CREATE TRIGGER events_are_never_deleted BEFORE DELETE ON events BEGIN
    SELECT RAISE(ABORT, 'events are never deleted');
END;

-- Also prevents INSERT OR REPLACE from removing an event, for which delete triggers do not fire.
CREATE TRIGGER events_come_in_order BEFORE INSERT ON events BEGIN
    SELECT RAISE(ABORT, 'positions are 1, 2, 3 without a gap')
    WHERE NEW.position <> (SELECT coalesce(max(position), 0) + 1 FROM events);
    SELECT RAISE(ABORT, 'versions of a user are 1, 2, 3 without a gap')
    WHERE NEW.version <> (SELECT coalesce(max(version), 0) + 1 FROM events WHERE user_id = NEW.user_id);
    SELECT RAISE(ABORT, 'an event is recorded once')
    WHERE EXISTS (SELECT 1 FROM events WHERE event_id = NEW.event_id);
    SELECT RAISE(ABORT, 'the time of recording never goes back')
    WHERE NEW.recorded_at < (SELECT recorded_at FROM events ORDER BY position DESC LIMIT 1);
END;

-- The holder of a username (held_until is NULL), or its last holder and the time until which no
-- other user may take it.
CREATE TABLE username_claims (
    username   TEXT NOT NULL PRIMARY KEY,
    user_id    TEXT NOT NULL,
    held_until INTEGER
) STRICT, WITHOUT ROWID;

CREATE INDEX username_claims_held ON username_claims (held_until) WHERE held_until IS NOT NULL;

-- The outcomes of commands with an Idempotency-Key.
CREATE TABLE idempotency (
    actor       TEXT    NOT NULL,
    key         TEXT    NOT NULL,
    fingerprint BLOB    NOT NULL CHECK (length(fingerprint) = 32),
    answer      BLOB    NOT NULL,
    recorded_at INTEGER NOT NULL,
    PRIMARY KEY (actor, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_recorded_at ON idempotency (recorded_at);
