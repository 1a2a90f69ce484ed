//! The only place that names a concrete store or broker.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use command_api::Randomness;
use events::Position;
use ledger::feed::{Feed, JetStreamFeed, StoreFeed, StreamFeed};
use ledger::merkle::LogStore;
use ledger::merkle::postgres::PostgresLog;
use ledger::merkle::sqlite::SqliteLog;
use ledger::photos::PhotoStore;
use ledger::relay::{self, Relay};
use ledger::store::postgres::PostgresStore;
use ledger::store::sqlite::SqliteStore;
use ledger::store::{EventStore, History};
use ledger::stream::Connection;
use ledger::trail::AuditTrail;
use ledger::trail::postgres::PostgresTrail;
use ledger::trail::sqlite::SqliteTrail;
use projector::ReadModel;
use projector::read_model::postgres::PostgresReadModel;
use projector::read_model::sqlite::SqliteReadModel;
use projector::rebuild::Replaceable;

use tokio::sync::watch;

use crate::config::{Config, PhotoUrl};
use crate::roles::Roles;

/// Events that the projection folds at once.
const FEED_BATCH: usize = 512;

/// The stores of the service, and the broker to which it publishes.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) read_model: Arc<dyn ReadModel>,
    /// Hashes and signed checkpoints of the ledger.
    pub(crate) log: Arc<dyn LogStore>,
    /// Only a process with the role of queries has one.
    pub(crate) trail: Option<Arc<dyn AuditTrail>>,
    pub(crate) photos: PhotoStore,
    /// `None`: nothing is published, and the projection reads the ledger.
    pub(crate) broker: Option<Connection>,
}

impl Parts {
    /// Opens everything and creates missing stores. A broker that is away is no error; the connection is made later.
    pub(crate) async fn open(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        if roles != Roles::ALL && config.database_url.is_none() {
            bail!("a process with one role needs PostgreSQL: set DATABASE_URL to a postgres:// URL")
        }
        let store = store(config).await?;
        let read_model = read_model(config).await?;
        let log = log(config).await?;
        let trail = if roles.queries {
            Some(trail(config).await?)
        } else {
            None
        };
        let broker = match &config.nats_url {
            Some(url) => Some(
                Connection::open(url)
                    .await
                    .context("NATS_URL cannot be used")?,
            ),
            None => None,
        };
        Ok(Self {
            store,
            read_model,
            log,
            trail,
            photos: photos(config)?,
            broker,
        })
    }

    /// A feed of events after a position: from the stream if there is one, otherwise from the ledger.
    pub(crate) fn feed(&self) -> impl Fn(Position) -> Box<dyn Feed> + Send + use<> {
        let (store, broker) = (Arc::clone(&self.store), self.broker.clone());
        move |after| match &broker {
            Some(broker) => Box::new(JetStreamFeed::new(
                Arc::clone(&store) as _,
                broker.clone(),
                after,
                FEED_BATCH,
            )),
            None => Box::new(StoreFeed::new(Arc::clone(&store) as _, after, FEED_BATCH)),
        }
    }

    /// The relay that publishes the ledger, and its health, if there is a broker.
    pub(crate) fn relay(
        &self,
        randomness: &Randomness,
    ) -> Option<(Relay, watch::Receiver<relay::Health>)> {
        let randomness = randomness.clone();
        Some(Relay::new(
            Arc::clone(&self.store) as _,
            self.broker.clone()?,
            relay::Settings::default(),
            move || u64::from_ne_bytes(randomness.bytes()),
        ))
    }
}

/// Creates the data directory with rights for its owner only.
pub(crate) fn private_folder(path: &Path) -> anyhow::Result<()> {
    let mut folder = std::fs::DirBuilder::new();
    std::os::unix::fs::DirBuilderExt::mode(folder.recursive(true), 0o700);
    folder
        .create(path)
        .with_context(|| format!("cannot make the data directory {}", path.display()))
}

/// Opens the photo store.
fn photos(config: &Config) -> anyhow::Result<PhotoStore> {
    let folder = match &config.photo_store {
        Some(PhotoUrl::Bucket(url)) => {
            return PhotoStore::s3(url)
                .with_context(|| format!("cannot use the photo store {url}"));
        }
        Some(PhotoUrl::Folder(folder)) => folder.clone(),
        None => config.data_dir.join("photos"),
    };
    PhotoStore::local(&folder)
        .with_context(|| format!("cannot open the photo folder {}", folder.display()))
}

/// Opens the ledger.
pub(crate) async fn store(config: &Config) -> anyhow::Result<Arc<dyn EventStore>> {
    if let Some(url) = &config.database_url {
        let store = PostgresStore::open(url).await;
        return Ok(Arc::new(
            store.context("cannot open the ledger of DATABASE_URL")?,
        ));
    }
    private_folder(&config.data_dir)?;
    let path = config.data_dir.join("ledger.db");
    let store = SqliteStore::open(&path)
        .await
        .with_context(|| format!("cannot open the ledger {}", path.display()))?;
    Ok(Arc::new(store))
}

/// Opens the ledger for reading, also while a service writes it. Creates and changes nothing.
pub(crate) async fn history(config: &Config) -> anyhow::Result<Arc<dyn History>> {
    if let Some(url) = &config.database_url {
        let history = PostgresStore::open_to_read(url).await;
        return history.context("cannot read the ledger of DATABASE_URL");
    }
    let path = config.data_dir.join("ledger.db");
    if !path.is_file() {
        bail!(
            "cannot read the ledger {}: the file does not exist; set --data-dir or --database-url",
            path.display()
        )
    }
    let history = SqliteStore::open_to_read(&path).await;
    history.with_context(|| format!("cannot read the ledger {}", path.display()))
}

/// Opens the log for reading.
pub(crate) async fn log_to_read(config: &Config) -> anyhow::Result<Arc<dyn LogStore>> {
    if let Some(url) = &config.database_url {
        let log = PostgresLog::open_to_read(url);
        return Ok(Arc::new(
            log.context("cannot read the log of DATABASE_URL")?,
        ));
    }
    let path = config.data_dir.join("log.db");
    let log = SqliteLog::open_to_read(&path).await;
    Ok(Arc::new(log.with_context(|| {
        format!("cannot read the log {}", path.display())
    })?))
}

/// Opens the user documents for reading.
pub(crate) async fn read_model_to_read(config: &Config) -> anyhow::Result<Arc<dyn ReadModel>> {
    if let Some(url) = read_model_url(config) {
        let read_model = PostgresReadModel::open_to_read(url).await;
        return Ok(Arc::new(read_model.context("cannot read the read model")?));
    }
    let path = config.data_dir.join("read-model.db");
    let read_model = SqliteReadModel::open_to_read(&path).await;
    Ok(Arc::new(read_model.with_context(|| {
        format!("cannot read the read model {}", path.display())
    })?))
}

/// A feed of events from a position on, or of new events: from the stream if there is one, otherwise from the ledger.
/// Everything is opened for reading only.
pub(crate) async fn follow(
    config: &Config,
    from: Option<Position>,
) -> anyhow::Result<Box<dyn Feed>> {
    let after = from.map(|from| from - 1);
    if let Some(url) = &config.nats_url {
        let connection = Connection::open(url)
            .await
            .context("NATS_URL cannot be used")?;
        return Ok(Box::new(StreamFeed::new(connection, after, FEED_BATCH)));
    }
    let history = history(config).await?;
    let after = match after {
        Some(after) => after,
        None => history.head().await?.position,
    };
    Ok(Box::new(StoreFeed::new(history, after, FEED_BATCH)))
}

/// Opens the user documents.
pub(crate) async fn read_model(config: &Config) -> anyhow::Result<Arc<dyn ReadModel>> {
    Ok(replaceable(config).await?)
}

/// Opens the user documents, which can be replaced while they are used.
pub(crate) async fn replaceable(config: &Config) -> anyhow::Result<Arc<dyn Replaceable>> {
    if let Some(url) = read_model_url(config) {
        let read_model = PostgresReadModel::open(url).await;
        return Ok(Arc::new(read_model.context("cannot open the read model")?));
    }
    let path = config.data_dir.join("read-model.db");
    let read_model = SqliteReadModel::open(&path)
        .await
        .with_context(|| format!("cannot open the read model {}", path.display()))?;
    Ok(Arc::new(read_model))
}

/// Opens the log of hashes and checkpoints. It is in the database of the ledger.
async fn log(config: &Config) -> anyhow::Result<Arc<dyn LogStore>> {
    if let Some(url) = &config.database_url {
        let log = PostgresLog::open(url).await;
        return Ok(Arc::new(
            log.context("cannot open the log of DATABASE_URL")?,
        ));
    }
    let path = config.data_dir.join("log.db");
    let log = SqliteLog::open(&path)
        .await
        .with_context(|| format!("cannot open the log {}", path.display()))?;
    Ok(Arc::new(log))
}

/// Opens the audit trail. It is in the database of the ledger.
async fn trail(config: &Config) -> anyhow::Result<Arc<dyn AuditTrail>> {
    if let Some(url) = &config.database_url {
        let trail = PostgresTrail::open(url).await;
        return Ok(Arc::new(
            trail.context("cannot open the audit trail of DATABASE_URL")?,
        ));
    }
    let path = config.data_dir.join("audit.db");
    let trail = SqliteTrail::open(&path)
        .await
        .with_context(|| format!("cannot open the audit trail {}", path.display()))?;
    Ok(Arc::new(trail))
}

/// The URL of the read model; by default that of the ledger.
fn read_model_url(config: &Config) -> Option<&str> {
    let own = config.read_model_url.as_deref();
    own.or(config.database_url.as_deref())
}

/// Brings the databases up to date.
pub(crate) async fn migrate(config: &Config) -> anyhow::Result<()> {
    if let Some(url) = &config.database_url {
        ledger::store::postgres::migrate(url)
            .await
            .context("cannot migrate the ledger")?;
        ledger::trail::postgres::migrate(url)
            .await
            .context("cannot migrate the audit trail")?;
        ledger::merkle::postgres::migrate(url)
            .await
            .context("cannot migrate the log")?;
    } else {
        let _lock = store(config).await?;
        trail(config).await?;
        log(config).await?;
    }
    match read_model_url(config) {
        Some(url) => projector::read_model::postgres::migrate(url)
            .await
            .context("cannot migrate the read model")?,
        None => drop(read_model(config).await?),
    }
    Ok(())
}

/// Random bytes of the operating system's quality, seeded once a thread.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the edge at which randomness enters"
)]
pub(crate) fn randomness() -> Randomness {
    Randomness::new(|bytes| rand::Rng::fill_bytes(&mut rand::rng(), bytes))
}
