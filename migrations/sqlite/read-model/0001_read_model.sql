-- The position up to which the rows below are the fold of the ledger, and the projector that writes
-- them.
CREATE TABLE projections (
    name     TEXT    NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL,
    owner    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO projections VALUES ('users', 0, '');

-- One document per user. Usernames are not unique here: the rows of a batch are written in any
-- order, so two users may have the same name within a transaction. The table has a rowid, because a
-- document would not fit into a page of an index.
CREATE TABLE users (
    user_id  TEXT    NOT NULL PRIMARY KEY,
    version  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    username TEXT    NOT NULL,
    document TEXT    NOT NULL
) STRICT;

CREATE INDEX users_username ON users (username);

-- The folded search words of the users; '#designer' stands for an expertise.
CREATE TABLE user_words (
    word    TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (word, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX user_words_user ON user_words (user_id, word);

-- Parked users: one of their events could not be folded, and later events wait.
CREATE TABLE parked_users (
    user_id       TEXT    NOT NULL PRIMARY KEY,
    from_position INTEGER NOT NULL,
    error         TEXT    NOT NULL,
    recorded_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
