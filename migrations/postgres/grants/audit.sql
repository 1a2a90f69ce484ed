-- The rights of the program on the audit trail, when another role has applied the migrations. The
-- owner of the schema runs this file, with the name of the program's role instead of
-- profile_ledger. Only the role query-api needs these rights.
GRANT USAGE ON SCHEMA audit TO profile_ledger;
GRANT SELECT ON audit.migrations TO profile_ledger;
GRANT SELECT, UPDATE ON audit.head TO profile_ledger;
GRANT SELECT, INSERT ON audit.reads TO profile_ledger;
