//! The Merkle log: the ledger as a Merkle tree (RFC 6962) with signed checkpoints, in the published
//! formats of `c2sp.org/tlog-tiles`. `tree` and `note` are pure. The trait here stores inner hashes
//! and checkpoints; each implementation is in a file named after its backend.
//!
//! Leaf hashes are part of the ledger. The [`Integrator`] computes inner hashes from them once and
//! signs checkpoints. Everything stored here can be computed again, except the signatures.

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

/// Stores inner hashes and signed checkpoints. Stored values are never changed or deleted.
#[async_trait]
pub trait LogStore: Send + Sync + 'static {
    /// Hashes of a level of tiles, from level 1 on, in tree order, after the first `skip`. Each
    /// covers [`TILE`] hashes of the level below.
    async fn hashes(&self, level: u32, skip: u64, limit: usize) -> Result<Vec<Hash>, Error>;

    /// The number of stored hashes of a level.
    async fn count(&self, level: u32) -> Result<u64, Error>;

    /// Stores more hashes of a level, starting at an index. Hashes that are already stored are
    /// skipped, because they can only be equal.
    async fn add_hashes(&self, level: u32, first: u64, hashes: &[Hash]) -> Result<(), Error>;

    /// The newest checkpoint: the last one that the head counts.
    async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, Error>;

    /// Checkpoints with a number above `after`, in order, whether the head counts them or not.
    async fn checkpoints(&self, after: u64, limit: usize) -> Result<Vec<SignedCheckpoint>, Error>;

    /// Stores and counts the next checkpoint. Returns `false` when its number exists, because
    /// another process signed one meanwhile.
    async fn add_checkpoint(&self, checkpoint: &SignedCheckpoint) -> Result<bool, Error>;

    /// The public key of the log. The given key becomes the log's key if there is none yet.
    async fn adopt_key(&self, key: &str) -> Result<String, Error>;

    /// The public key of the log, if there is one.
    async fn key(&self) -> Result<Option<String>, Error>;

    /// Whether rows exist where this program stores none: before the first hash or checkpoint,
    /// above the last level, or beside the head or the key.
    async fn has_strays(&self) -> Result<bool, Error>;
}

/// A checkpoint with its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// 1, 2, 3, … in signing order, without gaps.
    pub number: u64,
    /// The number of leaves.
    pub size: u64,
    /// The signed note, which contains the root.
    pub note: String,
}

/// The row that counts checkpoints is missing.
fn no_head() -> Error {
    Error::Damaged("the log does not have a head row".to_owned())
}

/// A checkpoint was counted, but its row is missing.
fn missing(number: u64) -> Error {
    Error::Damaged(format!("checkpoint {number}, the newest, is missing"))
}

/// Reads hashes of the tree for one computation. Each tile is read once.
pub struct TreeReader<'a> {
    history: &'a dyn History,
    log: &'a dyn LogStore,
    /// The number of leaves of the tree.
    size: u64,
    tiles: HashMap<(u32, u64), Vec<Hash>>,
}

impl<'a> TreeReader<'a> {
    /// A reader of the tree over the first `size` leaves.
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
        // Two look-ups, so that no borrow is held over the await.
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

    /// The hash over a range of leaves.
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

    /// The inclusion proof of a leaf.
    pub async fn inclusion(&mut self, index: u64) -> Result<Vec<Hash>, Error> {
        self.hashes(tree::inclusion(index, self.size)).await
    }

    /// The consistency proof from a smaller tree to this one.
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
