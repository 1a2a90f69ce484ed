//! The settings of a run, which every measurement reads.

use std::path::PathBuf;
use std::time::Duration;

use command_api::Randomness;
use tokio_util::sync::CancellationToken;

/// The program of the service, and the folder and servers for its data.
pub(crate) struct Settings {
    /// Services keep their data in a new folder in this one, which is on the disk that is measured.
    pub(crate) data_dir: PathBuf,
    /// Services use a new database on this server; without it, files in the folder.
    pub(crate) database_url: Option<String>,
    /// Services publish to this server, which must not have a ledger's stream.
    pub(crate) nats_url: Option<String>,
    /// The program of the service.
    pub(crate) service: PathBuf,
    /// For the names, secrets and events that a measurement makes.
    pub(crate) randomness: Randomness,
    /// Cancelled to stop the measurement: it then ends with an error and removes its data.
    pub(crate) stop: CancellationToken,
}

/// One run of a measurement.
pub(crate) struct Run {
    pub(crate) settings: Settings,
    /// How often everything is measured.
    pub(crate) rounds: u32,
    /// For how long each figure is measured, each time.
    pub(crate) seconds: u32,
}

impl Run {
    /// [`Self::seconds`] as a duration.
    pub(crate) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// The kind of database in this run, for titles.
    pub(crate) fn storage(&self) -> &'static str {
        if self.settings.database_url.is_some() {
            "PostgreSQL"
        } else {
            "embedded"
        }
    }
}
