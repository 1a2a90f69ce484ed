-- What the program needs of the audit trail when another role has applied the migrations. Run by the owner
-- of the schema, with the name of the program's role in place of profile_ledger. Only the role that answers
-- queries needs it.
GRANT USAGE ON SCHEMA audit TO profile_ledger;
GRANT SELECT ON audit.migrations TO profile_ledger;
GRANT SELECT, UPDATE ON audit.head TO profile_ledger;
GRANT SELECT, INSERT ON audit.reads TO profile_ledger;
