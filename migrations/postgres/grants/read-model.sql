-- The rights of the program on the read model, when another role has applied the migrations. The
-- owner of the schema runs this file, with the name of the program's role instead of
-- profile_ledger. The role query-api needs only USAGE and SELECT.
GRANT USAGE ON SCHEMA read_model TO profile_ledger;
GRANT SELECT ON read_model.migrations TO profile_ledger;
GRANT SELECT, UPDATE ON read_model.projections TO profile_ledger;
GRANT SELECT, INSERT, UPDATE, DELETE ON read_model.users, read_model.user_words, read_model.parked_users TO profile_ledger;
