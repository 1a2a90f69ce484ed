-- What the program needs of the read model when another role has applied the migrations. Run by the owner
-- of the schema, with the name of the program's role in place of profile_ledger. A role that only answers
-- queries needs no more than USAGE and SELECT.
GRANT USAGE ON SCHEMA read_model TO profile_ledger;
GRANT SELECT ON read_model.migrations TO profile_ledger;
GRANT SELECT, UPDATE ON read_model.projections TO profile_ledger;
GRANT SELECT, INSERT, UPDATE, DELETE ON read_model.users, read_model.user_words, read_model.parked_users TO profile_ledger;
