-- Callers and queries may be any Unicode text.
DO $$ BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the database must have the encoding UTF8, not %', current_setting('server_encoding');
    END IF;
END $$;

-- The number of recorded reads, in one row. Each read first increments it, so numbers become
-- visible in order and a reader that pages by number misses none. The fill factor keeps the many
-- updates in one page.
CREATE TABLE audit.head (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    number   bigint  NOT NULL
) WITH (fillfactor = 10);

INSERT INTO audit.head VALUES (1, 0);

-- Recorded reads of histories. A read is recorded before it is answered, and is never deleted.
CREATE TABLE audit.reads (
    number     bigint PRIMARY KEY,
    read_at    bigint NOT NULL, -- milliseconds since 1970
    actor      text   COLLATE "C" NOT NULL,
    route      text   NOT NULL,
    user_id    text   COLLATE "C", -- whose history; NULL means all users
    query      text   NOT NULL,
    request_id text   NOT NULL
);

CREATE INDEX reads_actor ON audit.reads (actor, number);
CREATE INDEX reads_user ON audit.reads (user_id, number) WHERE user_id IS NOT NULL;

CREATE FUNCTION audit.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

CREATE FUNCTION audit.head_goes_up_by_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.number <> OLD.number + 1 THEN
        RAISE EXCEPTION 'the number of recorded reads goes up by one';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION audit.reads_come_in_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.number <> coalesce((SELECT max(r.number) FROM audit.reads AS r), 0) + 1 THEN
        RAISE EXCEPTION 'numbers are 1, 2, 3 without a gap';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER head_goes_up_by_one BEFORE UPDATE ON audit.head
    FOR EACH ROW EXECUTE FUNCTION audit.head_goes_up_by_one();
CREATE TRIGGER head_stays BEFORE DELETE OR TRUNCATE ON audit.head
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse('the head of the audit trail is never deleted');
CREATE TRIGGER reads_come_in_order BEFORE INSERT ON audit.reads
    FOR EACH ROW EXECUTE FUNCTION audit.reads_come_in_order();
CREATE TRIGGER reads_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON audit.reads
    FOR EACH STATEMENT EXECUTE FUNCTION audit.refuse('recorded reads are never changed or deleted');

-- ENABLE ALWAYS: the triggers also fire in a session that acts as a replica.
ALTER TABLE audit.head
    ENABLE ALWAYS TRIGGER head_goes_up_by_one,
    ENABLE ALWAYS TRIGGER head_stays;
ALTER TABLE audit.reads
    ENABLE ALWAYS TRIGGER reads_come_in_order,
    ENABLE ALWAYS TRIGGER reads_are_never_changed;
