-- The rights of the program on the ledger, when another role has applied the migrations. The owner
-- of the schema runs this file, with the name of the program's role instead of profile_ledger.
GRANT USAGE ON SCHEMA ledger TO profile_ledger;
GRANT SELECT ON ledger.migrations TO profile_ledger;
GRANT SELECT, INSERT ON ledger.events TO profile_ledger;
GRANT SELECT, UPDATE ON ledger.ledger_head TO profile_ledger;
GRANT SELECT, INSERT, UPDATE, DELETE ON ledger.username_claims, ledger.idempotency TO profile_ledger;
