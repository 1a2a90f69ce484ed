//! The SQL files of `migrations/` that are part of the program.

use sqlx::SqlSafeStr as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};

/// Migrations from files: the name of each, such as `0001_ledger.sql`, and its text.
pub fn migrator(files: &[(&str, &'static str)]) -> Migrator {
    let migrations = files.iter().map(|(name, sql)| {
        let name = name.strip_suffix(".sql").unwrap_or(name);
        let parts = name.split_once('_');
        let (number, about) = parts.expect("the name of a file is a number, `_` and words");
        Migration::new(
            number.parse().expect("the name begins with a number"),
            about.replace('_', " ").into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn a_migration_has_its_number_and_words_from_the_name_of_its_file() {
        let migrator = migrator(&[
            ("0002_read_model.sql", "SELECT 2"),
            ("0001_a.sql", "SELECT 1"),
        ]);
        let found: Vec<_> = migrator
            .iter()
            .map(|migration| (migration.version, &*migration.description))
            .collect();
        assert_eq!(found, [(1, "a"), (2, "read model")]);
    }

    #[test]
    fn every_file_of_migrations_is_part_of_the_program() {
        let sources = [
            include_str!("store/sqlite.rs"),
            include_str!("store/postgres.rs"),
            include_str!("merkle/sqlite.rs"),
            include_str!("merkle/postgres.rs"),
            include_str!("trail/sqlite.rs"),
            include_str!("trail/postgres.rs"),
            include_str!("../../projector/src/read_model/sqlite.rs"),
            include_str!("../../projector/src/read_model/postgres.rs"),
        ];
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations");
        for database in ["audit", "ledger", "log", "read-model"] {
            for dialect in ["postgres", "sqlite"] {
                for file in std::fs::read_dir(folder.join(dialect).join(database)).unwrap() {
                    let name = file.unwrap().file_name().into_string().unwrap();
                    let path = format!("migrations/{dialect}/{database}/{name}\"");
                    let is_part = sources.iter().any(|source| source.contains(&path));
                    assert!(is_part, "add {path} to MIGRATIONS of its database");
                }
            }
        }
    }
}
