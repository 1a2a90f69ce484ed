-- Names, words and messages may be any Unicode text.
DO $$ BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the database must have the encoding UTF8, not %', current_setting('server_encoding');
    END IF;
END $$;

-- The head of the ledger, in one row. An append first moves it by compare-and-swap from the head
-- that its events were decided on, so two appends can never take the same positions. The fill
-- factor keeps the many updates in one page.
CREATE TABLE ledger.ledger_head (
    only_row    integer PRIMARY KEY CHECK (only_row = 1),
    store_id    text    NOT NULL,
    epoch       bigint  NOT NULL,
    position    bigint  NOT NULL,
    recorded_at bigint  NOT NULL, -- milliseconds since 1970
    appends     bigint  NOT NULL  -- an append without events does not move the position
) WITH (fillfactor = 10);

INSERT INTO ledger.ledger_head VALUES (1, replace(gen_random_uuid()::text, '-', ''), 1, 0, 0, 0);

CREATE FUNCTION ledger.ledger_head_never_goes_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.position < OLD.position OR NEW.recorded_at < OLD.recorded_at OR NEW.epoch < OLD.epoch
        OR NEW.appends < OLD.appends THEN
        RAISE EXCEPTION 'the head of the ledger never goes back';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION ledger.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

CREATE TRIGGER ledger_head_never_goes_back BEFORE UPDATE ON ledger.ledger_head
    FOR EACH ROW EXECUTE FUNCTION ledger.ledger_head_never_goes_back();
CREATE TRIGGER ledger_head_stays BEFORE DELETE OR TRUNCATE ON ledger.ledger_head
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse('the head of the ledger is never deleted');

-- The ledger. The envelope contains the exact bytes that were hashed; the other columns are for
-- finding an event.
CREATE TABLE ledger.events (
    position       bigint  PRIMARY KEY,
    event_id       uuid    NOT NULL UNIQUE,
    user_id        text    COLLATE "C" NOT NULL,
    version        bigint  NOT NULL,
    event_type     text    NOT NULL,
    schema_version integer NOT NULL,
    recorded_at    bigint  NOT NULL, -- milliseconds since 1970
    envelope       bytea   NOT NULL,
    leaf_hash      bytea   NOT NULL CHECK (length(leaf_hash) = 32),
    UNIQUE (user_id, version)
);

-- Envelopes are not compressed: that would cost more time than it saves space.
ALTER TABLE ledger.events ALTER COLUMN envelope SET STORAGE EXTERNAL;

CREATE TRIGGER events_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON ledger.events
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse('events are never changed or deleted');

-- The events of one statement must end at the head and continue the existing ones without gaps.
CREATE FUNCTION ledger.events_come_in_order() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    first_position bigint;
    last_position  bigint;
    rows           bigint;
BEGIN
    SELECT min(position), max(position), count(*) INTO first_position, last_position, rows FROM added;
    IF rows = 0 THEN
        RETURN NULL;
    END IF;
    IF last_position - first_position + 1 <> rows
        OR first_position - 1 <> (SELECT coalesce(max(e.position), 0) FROM ledger.events AS e WHERE e.position < first_position)
        OR last_position <> (SELECT h.position FROM ledger.ledger_head AS h)
    THEN
        RAISE EXCEPTION 'positions are 1, 2, 3 without a gap, up to the head';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT user_id, version - row_number() OVER (PARTITION BY user_id ORDER BY position) AS before FROM added
        ) AS a
        WHERE a.before <> (
            SELECT coalesce(max(e.version), 0) FROM ledger.events AS e
            WHERE e.user_id = a.user_id AND e.position < first_position
        )
    ) THEN
        RAISE EXCEPTION 'versions of a user are 1, 2, 3 without a gap';
    END IF;
    IF EXISTS (
        SELECT FROM (
            SELECT recorded_at, lag(recorded_at) OVER (ORDER BY position) AS before FROM added
        ) AS a
        WHERE a.recorded_at < coalesce(
            a.before,
            (SELECT e.recorded_at FROM ledger.events AS e WHERE e.position = first_position - 1)
        )
    ) THEN
        RAISE EXCEPTION 'the time of recording never goes back';
    END IF;
    RETURN NULL;
END $$;

CREATE TRIGGER events_come_in_order AFTER INSERT ON ledger.events REFERENCING NEW TABLE AS added
    FOR EACH STATEMENT EXECUTE FUNCTION ledger.events_come_in_order();

-- ENABLE ALWAYS: the triggers also fire in a session that acts as a replica.
ALTER TABLE ledger.ledger_head
    ENABLE ALWAYS TRIGGER ledger_head_never_goes_back,
    ENABLE ALWAYS TRIGGER ledger_head_stays;
ALTER TABLE ledger.events
    ENABLE ALWAYS TRIGGER events_are_never_changed,
    ENABLE ALWAYS TRIGGER events_come_in_order;

-- The holder of a username (held_until is NULL), or its last holder and the time until which no
-- other user may take it.
CREATE TABLE ledger.username_claims (
    username   text   COLLATE "C" PRIMARY KEY,
    user_id    text   COLLATE "C" NOT NULL,
    held_until bigint
);

CREATE INDEX username_claims_held ON ledger.username_claims (held_until) WHERE held_until IS NOT NULL;

-- Aborts an append from within its statement.
CREATE FUNCTION ledger.refuse_taken_name() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION 'a username belongs to another user' USING ERRCODE = 'PLTKN';
END $$;

-- The outcomes of commands with an Idempotency-Key. Actors and keys are bytes: an issuer of tokens
-- may choose any subject, and text cannot hold every string.
CREATE TABLE ledger.idempotency (
    actor       bytea  NOT NULL,
    key         bytea  NOT NULL,
    fingerprint bytea  NOT NULL CHECK (length(fingerprint) = 32),
    answer      bytea  NOT NULL,
    recorded_at bigint NOT NULL,
    PRIMARY KEY (actor, key)
);

CREATE INDEX idempotency_recorded_at ON ledger.idempotency (recorded_at);
