-- Inner hashes of the ledger's Merkle tree: of level 1, each over 256 leaves; of the levels above, each over
-- 256 of the level below.
CREATE TABLE log.hashes (
    level integer NOT NULL CHECK (level > 0),
    place bigint  NOT NULL CHECK (place >= 0),
    hash  bytea   NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, place)
);

-- What was signed, for ever.
CREATE TABLE log.checkpoints (
    size bigint PRIMARY KEY CHECK (size > 0),
    note text   NOT NULL
);

-- Whose signatures these are.
CREATE TABLE log.log_key (
    only_row   integer PRIMARY KEY CHECK (only_row = 1),
    public_key text    NOT NULL
);

CREATE FUNCTION log.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    RAISE EXCEPTION '%', TG_ARGV[0];
END $$;

CREATE TRIGGER hashes_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON log.hashes
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse('hashes are never changed or deleted');
CREATE TRIGGER checkpoints_are_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON log.checkpoints
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse('checkpoints are never changed or deleted');
CREATE TRIGGER the_key_is_never_changed BEFORE UPDATE OR DELETE OR TRUNCATE ON log.log_key
    FOR EACH STATEMENT EXECUTE FUNCTION log.refuse('the key of the log is never changed or deleted');

-- Not even a session that replays another server's changes gets past these.
ALTER TABLE log.hashes ENABLE ALWAYS TRIGGER hashes_are_never_changed;
ALTER TABLE log.checkpoints ENABLE ALWAYS TRIGGER checkpoints_are_never_changed;
ALTER TABLE log.log_key ENABLE ALWAYS TRIGGER the_key_is_never_changed;
