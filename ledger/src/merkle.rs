//! The proof that history is what it was: the ledger as a Merkle tree (RFC 6962) with signed checkpoints,
//! in the published forms of `c2sp.org/tlog-tiles`. `tree` and `note` are pure; the trait here is where
//! inner hashes and checkpoints are kept, each implementation in a file named for its backend.
//!
//! Leaf hashes are the ledger's own. Inner hashes are worked out once from them by the [`Integrator`], which
//! also signs what the tree is. Everything kept here can be worked out again, but for the signatures.

use std::collections::HashMap;

use async_trait::async_trait;

use crate::store::{Error, History};

#[cfg(test)]
mod conformance;
mod integrator;
pub mod note;
pub mod postgres;
pub mod sqlite;
pub mod tree;
pub mod verify;

pub use integrator::Integrator;
use tree::{Hash, Leaves, TILE};

/// Where inner hashes and signed checkpoints are kept. What is kept is never changed or deleted.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Hashes of a level of tiles, from 1 on, in the order of the tree: those after the first `skip`. Each is over
    /// [`TILE`] hashes of the level below.
    async fn hashes(&self, level: u32, skip: u64, limit: usize) -> Result<Vec<Hash>, Error>;

    /// How many hashes of a level are kept.
    async fn count(&self, level: u32) -> Result<u64, Error>;

    /// Keeps further hashes of a level, from a place on. Such as are there already are passed over, as they
    /// can only be the same.
    async fn add_hashes(&self, level: u32, first: u64, hashes: &[Hash]) -> Result<(), Error>;

    /// The newest checkpoint: the last of those that were counted.
    async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, Error>;

    /// Checkpoints whose number is beyond one, in their order, whether counted or not.
    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<SignedCheckpoint>, Error>;

    /// Keeps and counts the next checkpoint. `false`: there is one of its number, so another one was signed
    /// meanwhile.
    async fn add_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<bool, Error>;

    /// The public key of the log; the given one becomes it if there is none.
    async fn adopt_key(&self, key: &str) -> Result<String, Error>;

    /// The public key of the log, once there is one.
    async fn key(&self) -> Result<Option<String>, Error>;

    /// Whether something is kept where this program keeps nothing: before the first hash or checkpoint, above the
    /// last level, or beside the head or the key.
    async fn has_strays(&self) -> Result<bool, Error>;
}

/// A checkpoint as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// 1, 2, 3 in the order of signing, without a gap.
    pub number: u64,
    /// How many leaves.
    pub size: u64,
    /// The signed note, which says the root.
    pub note: String,
}

/// The row is missing that counts checkpoints.
fn no_head() -> Error {
    Error::Damaged("the log has no head".to_owned())
}

/// A checkpoint was counted, and is not there.
fn missing(number: u64) -> Error {
    Error::Damaged(format!("checkpoint {number}, the newest, is missing"))
}

/// What is read of the tree for one purpose. Each tile is read once.
pub struct Reader<'a> {
    history: &'a dyn History,
    log: &'a dyn LogStore,
    /// How many leaves the tree has.
    size: u64,
    tiles: HashMap<(u32, u64), Vec<Hash>>,
}

impl<'a> Reader<'a> {
    /// A reader of the tree over the first leaves.
    pub fn new(history: &'a dyn History, log: &'a dyn LogStore, size: u64) -> Self {
        Self {
            history,
            log,
            size,
            tiles: HashMap::new(),
        }
    }

    /// The hashes of one tile, as many as the tree has.
    pub async fn tile(&mut self, level: u32, index: u64) -> Result<&[Hash], Error> {
        // Nothing is held over the await: the map is entered twice.
        if !self.tiles.contains_key(&(level, index)) {
            let hashes = self.load(level, index).await?;
            self.tiles.insert((level, index), hashes);
        }
        Ok(&self.tiles[&(level, index)])
    }

    async fn load(&self, level: u32, index: u64) -> Result<Vec<Hash>, Error> {
        let of_level = self.size.checked_shr(8 * level).unwrap_or(0);
        let skip = index.saturating_mul(TILE);
        let wanted = usize::try_from(of_level.saturating_sub(skip).min(TILE)).unwrap_or(0);
        let hashes = if level == 0 {
            self.history.leaf_hashes(skip, wanted).await?
        } else {
            self.log.hashes(level, skip, wanted).await?
        };
        if hashes.len() < wanted {
            return Err(Error::Damaged(format!(
                "tile {index} of level {level} of the tree has {} of {wanted} hashes",
                hashes.len()
            )));
        }
        Ok(hashes)
    }

    /// The hash over some leaves.
    pub async fn hash(&mut self, leaves: Leaves) -> Result<Hash, Error> {
        let mut hashes = Vec::new();
        for subtree in leaves.subtrees() {
            let (level, first, count) = subtree.kept();
            let tile = self.tile(level, first / TILE).await?;
            let start = usize::try_from(first % TILE).unwrap_or(usize::MAX);
            let count = usize::try_from(count).unwrap_or(usize::MAX);
            hashes.push(tree::perfect(&tile[start..start + count]));
        }
        Ok(tree::join(&hashes))
    }

    /// The root of the tree.
    pub async fn root(&mut self) -> Result<Hash, Error> {
        self.hash(Leaves::all(self.size)).await
    }

    /// The hashes that show that a leaf is in the tree.
    pub async fn inclusion(&mut self, index: u64) -> Result<Vec<Hash>, Error> {
        self.hashes(tree::inclusion(index, self.size)).await
    }

    /// The hashes that show that a smaller tree is the beginning of this one.
    pub async fn consistency(&mut self, from: u64) -> Result<Vec<Hash>, Error> {
        self.hashes(tree::consistency(from, self.size)).await
    }

    async fn hashes(&mut self, path: Vec<Leaves>) -> Result<Vec<Hash>, Error> {
        let mut hashes = Vec::with_capacity(path.len());
        for leaves in path {
            hashes.push(self.hash(leaves).await?);
        }
        Ok(hashes)
    }
}

#[cfg(test)]
mod tests;
