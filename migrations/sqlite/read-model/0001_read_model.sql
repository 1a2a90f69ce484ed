-- Up to which position of the ledger the rows below are its fold, and which projector writes them.
CREATE TABLE projections (
    name     TEXT    NOT NULL PRIMARY KEY,
    position INTEGER NOT NULL,
    owner    TEXT    NOT NULL
) STRICT, WITHOUT ROWID;

INSERT INTO projections VALUES ('users', 0, '');

-- One document a user. Usernames are not unique here: the rows of a batch are written in any order, so
-- one that passes on may stand at both users for the length of a transaction. With a rowid, as a document
-- would not fit into a page of an index.
CREATE TABLE users (
    user_id  TEXT    NOT NULL PRIMARY KEY,
    version  INTEGER NOT NULL,
    position INTEGER NOT NULL,
    username TEXT    NOT NULL,
    document TEXT    NOT NULL
) STRICT;

CREATE INDEX users_username ON users (username);

-- The folded words by which a user is found; '#designer' stands for an expertise.
CREATE TABLE user_words (
    word    TEXT NOT NULL,
    user_id TEXT NOT NULL,
    PRIMARY KEY (word, user_id)
) STRICT, WITHOUT ROWID;

CREATE INDEX user_words_user ON user_words (user_id, word);

-- Users whose events wait because one of them could not be folded.
CREATE TABLE parked_users (
    user_id       TEXT    NOT NULL PRIMARY KEY,
    from_position INTEGER NOT NULL,
    error         TEXT    NOT NULL,
    recorded_at   INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
