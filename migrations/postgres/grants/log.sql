-- The rights of the program on the Merkle log, when another role has applied the migrations. The
-- owner of the schema runs this file, with the name of the program's role instead of
-- profile_ledger. The role query-api needs only USAGE and SELECT.
GRANT USAGE ON SCHEMA log TO profile_ledger;
GRANT SELECT ON log.migrations TO profile_ledger;
GRANT SELECT, UPDATE ON log.head TO profile_ledger;
GRANT SELECT, INSERT ON log.hashes, log.checkpoints, log.log_key TO profile_ledger;
