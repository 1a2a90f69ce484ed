//! The only place that names a concrete store or broker.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use command_api::Randomness;
use events::Position;
use events::feed::{Feed, JetStreamFeed, StoreFeed};
use events::photos::PhotoStore;
use events::relay::{self, Relay};
use events::store::EventStore;
use events::store::sqlite::SqliteStore;
use events::stream::Connection;
use projector::ReadModel;
use projector::read_model::sqlite::SqliteReadModel;

use tokio::sync::watch;

use crate::config::{Config, PhotoUrl};
use crate::service::Roles;

/// Events that the projection folds at once.
const FEED_BATCH: usize = 512;

/// Where the service keeps things, and where it publishes.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) photos: PhotoStore,
    /// `None`: nothing is published, and the projection tails the ledger.
    pub(crate) broker: Option<Connection>,
}

impl Parts {
    /// Opens everything, making what is not there. A broker that is away is waited for later.
    pub(crate) async fn open(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        if roles != Roles::ALL {
            bail!(
                "one role a process needs a database that processes share: set DATABASE_URL to a postgres:// URL"
            )
        }
        let store = store(&config.data_dir).await?;
        let path = config.data_dir.join("read-model.db");
        let read_model = SqliteReadModel::open(&path)
            .await
            .with_context(|| format!("cannot open the read model {}", path.display()))?;
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
            read_model: Arc::new(read_model),
            photos: photos(config)?,
            broker,
        })
    }

    /// A feed of events after a position: from the stream where there is one, else from the ledger.
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

    /// What publishes the ledger, if there is a broker; and its health.
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

/// Opens the ledger in the data directory.
pub(crate) async fn store(data_dir: &Path) -> anyhow::Result<Arc<dyn EventStore>> {
    let path = data_dir.join("ledger.db");
    let store = SqliteStore::open(&path)
        .await
        .with_context(|| format!("cannot open the ledger {}", path.display()))?;
    Ok(Arc::new(store))
}

/// Random bytes of the operating system's quality, seeded once a thread.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the edge at which randomness enters"
)]
pub(crate) fn randomness() -> Randomness {
    Randomness::new(|bytes| rand::Rng::fill_bytes(&mut rand::rng(), bytes))
}
