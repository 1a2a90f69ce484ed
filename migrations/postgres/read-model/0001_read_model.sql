-- Names, words and messages may be any Unicode text.
DO $$ BEGIN
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'the database must have the encoding UTF8, not %', current_setting('server_encoding');
    END IF;
END $$;

-- The position up to which the rows below are the fold of the ledger, and the projector that writes
-- them.
CREATE TABLE read_model.projections (
    name     text   PRIMARY KEY,
    position bigint NOT NULL,
    owner    text   NOT NULL
) WITH (fillfactor = 10);

INSERT INTO read_model.projections VALUES ('users', 0, '');

-- One document per user. Usernames are not unique here: the rows of a batch are written in any
-- order, so two users may have the same name within a transaction. Documents are text: their
-- members stay in order, and jsonb cannot hold every string. Most steps change no indexed column,
-- so a new row version fits beside the old one and no index is touched.
CREATE TABLE read_model.users (
    user_id  text   COLLATE "C" PRIMARY KEY,
    version  bigint NOT NULL,
    position bigint NOT NULL,
    username text   COLLATE "C" NOT NULL,
    document text   NOT NULL
) WITH (fillfactor = 70);

CREATE INDEX users_username ON read_model.users (username);

-- The folded search words of the users; '#designer' stands for an expertise. They sort by bytes,
-- whatever the language of the database.
CREATE TABLE read_model.user_words (
    word    text COLLATE "C" NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    PRIMARY KEY (word, user_id)
);

CREATE INDEX user_words_user ON read_model.user_words (user_id, word);

-- Parked users: one of their events could not be folded, and later events wait.
CREATE TABLE read_model.parked_users (
    user_id       text   COLLATE "C" PRIMARY KEY,
    from_position bigint NOT NULL,
    error         text   NOT NULL,
    recorded_at   bigint NOT NULL
);
