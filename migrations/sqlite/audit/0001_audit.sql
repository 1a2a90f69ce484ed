-- Recorded reads of histories. A read is recorded before it is answered, and is never deleted.
CREATE TABLE reads (
    number     INTEGER PRIMARY KEY,
    read_at    INTEGER NOT NULL, -- milliseconds since 1970
    actor      TEXT    NOT NULL,
    route      TEXT    NOT NULL,
    user_id    TEXT, -- whose history; NULL means all users
    query      TEXT    NOT NULL,
    request_id TEXT    NOT NULL
) STRICT;

CREATE INDEX reads_actor ON reads (actor, number);
CREATE INDEX reads_user ON reads (user_id, number) WHERE user_id IS NOT NULL;

CREATE TRIGGER reads_are_never_changed BEFORE UPDATE ON reads BEGIN
    SELECT RAISE(ABORT, 'recorded reads are never changed');
END;

CREATE TRIGGER reads_are_never_deleted BEFORE DELETE ON reads BEGIN
    SELECT RAISE(ABORT, 'recorded reads are never deleted');
END;

-- Also prevents INSERT OR REPLACE from removing a read, for which delete triggers do not fire.
CREATE TRIGGER reads_come_in_order BEFORE INSERT ON reads BEGIN
    SELECT RAISE(ABORT, 'numbers are 1, 2, 3 without a gap')
    WHERE NEW.number <> (SELECT coalesce(max(number), 0) + 1 FROM reads);
END;
