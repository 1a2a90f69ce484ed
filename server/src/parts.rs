//! The only place that names a concrete store.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use command_api::Randomness;
use events::photos::PhotoStore;
use events::store::EventStore;
use events::store::sqlite::SqliteStore;
use projector::ReadModel;
use projector::read_model::sqlite::SqliteReadModel;

use crate::config::{Config, PhotoUrl};
use crate::service::Roles;

/// Where the service keeps things.
pub(crate) struct Parts {
    pub(crate) store: Arc<dyn EventStore>,
    pub(crate) read_model: Arc<dyn ReadModel>,
    pub(crate) photos: PhotoStore,
}

impl Parts {
    /// Opens everything, making what is not there.
    pub(crate) async fn open(config: &Config, roles: Roles) -> anyhow::Result<Self> {
        if roles != Roles::ALL {
            bail!("one role a process needs a database that processes share")
        }
        let data_dir = &config.data_dir;
        let store = store(data_dir).await?;
        let path = data_dir.join("read-model.db");
        let read_model = SqliteReadModel::open(&path)
            .await
            .with_context(|| format!("cannot open the read model {}", path.display()))?;
        let photos = photos(config)?;
        Ok(Self {
            store,
            read_model: Arc::new(read_model),
            photos,
        })
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
