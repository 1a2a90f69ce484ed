-- Names, words and messages are any Unicode text.
DO $$ BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the database must have the encoding UTF8, not %', current_setting('server_encoding');
    END IF;
END $$;

-- Up to which position of the ledger the rows below are its fold, and which projector writes them.
CREATE TABLE read_model.projections (
    name     text   PRIMARY KEY,
    position bigint NOT NULL,
    owner    text   NOT NULL
) WITH (fillfactor = 10);

INSERT INTO read_model.projections VALUES ('users', 0, '');

-- One document a user. Usernames are not unique here: the rows of a batch are written in any order, so
-- one that passes on may stand at both users for the length of a transaction. Documents are text: their
-- members stay in order, and jsonb cannot hold every string. Most steps change no column of an index, so that a new
-- version of a row finds room beside the old one and no index is touched.
CREATE TABLE read_model.users (
    user_id  text   COLLATE "C" PRIMARY KEY,
    version  bigint NOT NULL,
    position bigint NOT NULL,
    username text   COLLATE "C" NOT NULL,
    document text   NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX users_username ON read_model.users (username);

-- The folded words by which a user is found; '#designer' stands for an expertise. Their order is that of
-- their bytes, whatever the language of the database.
CREATE TABLE read_model.user_words (
    word    text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (word, user_id)
);

CREATE INDEX user_words_user ON read_model.user_words (user_id, word);

-- Users whose events wait because one of them could not be folded.
CREATE TABLE read_model.parked_users (
    user_id       text   COLLATE "C" PRIMARY KEY,
    from_position bigint NOT NULL,
    error         text   NOT NULL,
    recorded_at   bigint NOT NULL
);
