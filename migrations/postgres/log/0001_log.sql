-- Inner hashes of the Merkle tree of the ledger. A hash of level 1 covers 256 leaves; a hash of a
-- higher level covers 256 hashes of the level below.
CREATE TABLE log.hashes (
    level integer NOT NULL CHECK (level > 0),
    hash_index bigint  NOT NULL CHECK (hash_index >= 0),
    hash  bytea   NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, hash_index)
);

-- The number of signed checkpoints, in one row. Each new checkpoint first increments it, so a
-- missing checkpoint is noticed, even the newest. The fill factor keeps the many updates in one
-- page.
CREATE TABLE log.head (
    only_row integer PRIMARY KEY CHECK (only_row = 1),
    number   bigint  NOT NULL
) WITH (fillfactor = 10);

INSERT INTO log.head VALUES (1, 0);

-- Signed checkpoints, never deleted.
CREATE TABLE log.checkpoints (
    number bigint PRIMARY KEY,
    size   bigint NOT NULL UNIQUE CHECK (size > 0),
    note   text   NOT NULL
);

-- The public key of the signatures.
CREATE TABLE log.log_key (
    only_row   integer PRIMARY KEY CHECK (only_row = 1),
    public_key text    NOT NULL
);

CREATE FUNCTION log.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

CREATE FUNCTION log.head_goes_up_by_one() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.number <> OLD.number + 1 THEN
        RAISE EXCEPTION 'the number of signed checkpoints goes up by one';
    END IF;
    RETURN NEW;
END $$;

CREATE FUNCTION log.checkpoints_come_in_order() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF NEW.number <> coalesce((SELECT max(c.number) FROM log.checkpoints AS c), 0) + 1
        OR NEW.size <= (SELECT coalesce(max(c.size), 0) FROM log.checkpoints AS c)
    THEN
        RAISE EXCEPTION 'checkpoints are numbered 1, 2, 3 without a gap, and their sizes grow';
    END IF;
    RETURN NEW;
END $$;

CREATE TRIGGER head_goes_up_by_one BEFORE UPDATE ON log.head
    FOR EACH ROW EXECUTE FUNCTION log.head_goes_up_by_one();
CREATE TRIGGER head_stays BEFORE DELETE OR TRUNCATE ON log.head
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse('the head of the log is never deleted');
CREATE TRIGGER hashes_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON log.hashes
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse('hashes are never changed or deleted');
CREATE TRIGGER checkpoints_come_in_order BEFORE INSERT ON log.checkpoints
    FOR EACH ROW EXECUTE FUNCTION log.checkpoints_come_in_order();
CREATE TRIGGER checkpoints_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON log.checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse('checkpoints are never changed or deleted');
CREATE TRIGGER the_key_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON log.log_key
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse('the key of the log is never changed or deleted');

-- ENABLE ALWAYS: the triggers also fire in a session that acts as a replica.
ALTER TABLE log.head
    ENABLE ALWAYS TRIGGER head_goes_up_by_one,
    ENABLE ALWAYS TRIGGER head_stays;
ALTER TABLE log.hashes ENABLE ALWAYS TRIGGER hashes_are_never_changed;
ALTER TABLE log.checkpoints
    ENABLE ALWAYS TRIGGER checkpoints_come_in_order,
    ENABLE ALWAYS TRIGGER checkpoints_are_never_changed;
ALTER TABLE log.log_key ENABLE ALWAYS TRIGGER the_key_is_never_changed;
