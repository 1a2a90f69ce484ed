-- The superuser runs this file once on a new server. It creates the database, its owner (who
-- applies the migrations), and the role of the program (which has only the rights of
-- migrations/postgres/grants/). The official image runs this file at its first start, scripts/stack
-- with psql. Passwords come from the environment.
\set ON_ERROR_STOP on
\getenv owner_password POSTGRES_OWNER_PASSWORD
\getenv program_password POSTGRES_PROGRAM_PASSWORD
CREATE ROLE profile_ledger_owner LOGIN PASSWORD :'owner_password';
CREATE ROLE profile_ledger LOGIN PASSWORD :'program_password';
CREATE DATABASE profile_ledger OWNER profile_ledger_owner ENCODING 'UTF8' TEMPLATE template0;
REVOKE ALL ON DATABASE profile_ledger, postgres FROM PUBLIC;
GRANT CONNECT ON DATABASE profile_ledger TO profile_ledger;
