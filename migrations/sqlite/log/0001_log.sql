-- Inner hashes of the Merkle tree of the ledger. A hash of level 1 covers 256 leaves; a hash of a
-- higher level covers 256 hashes of the level below.
CREATE TABLE hashes (
    level INTEGER NOT NULL CHECK (level > 0),
    hash_index INTEGER NOT NULL CHECK (hash_index >= 0),
    hash  BLOB    NOT NULL CHECK (length(hash) = 32),
    PRIMARY KEY (level, hash_index)
) STRICT, WITHOUT ROWID;

-- The number of signed checkpoints, in one row. Each new checkpoint increments it, so a missing
-- checkpoint is noticed, even the newest.
CREATE TABLE head (
    only_row INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    number   INTEGER NOT NULL
) STRICT;

INSERT INTO head VALUES (1, 0);

-- Signed checkpoints, never deleted.
CREATE TABLE checkpoints (
    number INTEGER NOT NULL PRIMARY KEY,
    size   INTEGER NOT NULL UNIQUE CHECK (size > 0),
    note   TEXT    NOT NULL
) STRICT;

-- The public key of the signatures.
CREATE TABLE log_key (
    only_row   INTEGER NOT NULL PRIMARY KEY CHECK (only_row = 1),
    public_key TEXT    NOT NULL
) STRICT;

CREATE TRIGGER hashes_are_never_changed BEFORE UPDATE ON hashes BEGIN
    SELECT RAISE(ABORT, 'hashes are never changed');
END;
CREATE TRIGGER hashes_are_never_deleted BEFORE DELETE ON hashes BEGIN
    SELECT RAISE(ABORT, 'hashes are never deleted');
END;
-- Also prevents INSERT OR REPLACE from removing a row, for which delete triggers do not fire.
CREATE TRIGGER hashes_come_in_order BEFORE INSERT ON hashes BEGIN
    SELECT RAISE(ABORT, 'hashes of a level come in order')
    WHERE NEW.hash_index <> (SELECT coalesce(max(hash_index), -1) + 1 FROM hashes WHERE level = NEW.level);
END;

CREATE TRIGGER checkpoints_are_never_changed BEFORE UPDATE ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'checkpoints are never changed');
END;
CREATE TRIGGER checkpoints_are_never_deleted BEFORE DELETE ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'checkpoints are never deleted');
END;
CREATE TRIGGER checkpoints_come_in_order BEFORE INSERT ON checkpoints BEGIN
    SELECT RAISE(ABORT, 'checkpoints are numbered 1, 2, 3 without a gap, and their sizes grow')
    WHERE NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM checkpoints)
        OR NEW.size <= (SELECT coalesce(max(size), 0) FROM checkpoints);
END;

CREATE TRIGGER head_goes_up_by_one BEFORE UPDATE ON head BEGIN
    SELECT RAISE(ABORT, 'the number of signed checkpoints goes up by one') WHERE NEW.number <> OLD.number + 1;
END;
CREATE TRIGGER head_is_never_deleted BEFORE DELETE ON head BEGIN
    SELECT RAISE(ABORT, 'the head of the log is never deleted');
END;
CREATE TRIGGER there_is_one_head BEFORE INSERT ON head BEGIN
    SELECT RAISE(ABORT, 'the log has a head') WHERE EXISTS (SELECT 1 FROM head);
END;

CREATE TRIGGER the_key_is_never_changed BEFORE UPDATE ON log_key BEGIN
    SELECT RAISE(ABORT, 'the key of the log is never changed');
END;
CREATE TRIGGER the_key_is_never_deleted BEFORE DELETE ON log_key BEGIN
    SELECT RAISE(ABORT, 'the key of the log is never deleted');
END;
CREATE TRIGGER there_is_one_key BEFORE INSERT ON log_key BEGIN
    SELECT RAISE(ABORT, 'the log has a key') WHERE EXISTS (SELECT 1 FROM log_key);
END;
