-- What the program needs of the log of hashes and checkpoints when another role has applied the migrations. Run
-- by the owner of the schema, with the name of the program's role in place of profile_ledger. A role that only
-- answers queries needs no more than USAGE and SELECT.
GRANT USAGE ON SCHEMA log TO profile_ledger;
GRANT SELECT ON log.migrations TO profile_ledger;
GRANT SELECT, UPDATE ON log.head TO profile_ledger;
GRANT SELECT, INSERT ON log.hashes, log.checkpoints, log.log_key TO profile_ledger;
