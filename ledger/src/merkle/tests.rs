use std::sync::atomic::{AtomicUsize, Ordering};

use super::tree::{Hash, is_consistent, is_included, perfect};
use super::*;
use crate::store::{Claim, Head, Outcome, OutcomeKey};
use events::envelope::StoredEvent;
use events::{EventId, Position, UserId, Version};

/// A ledger of any length with equal events, and its hashes. Counts the reads.
struct Uniform {
    leaf: Hash,
    reads: AtomicUsize,
}

impl Uniform {
    fn read(&self, level: u32, limit: usize) -> Vec<Hash> {
        assert!(limit <= 256, "{limit} hashes at once");
        self.reads.fetch_add(1, Ordering::Relaxed);
        let above = |hash: Hash, _| perfect(&[hash; 256]);
        vec![(0..level).fold(self.leaf, above); limit]
    }
}

#[async_trait]
impl LogStore for Uniform {
    async fn hashes(&self, level: u32, _: u64, limit: usize) -> Result<Vec<Hash>, Error> {
        Ok(self.read(level, limit))
    }

    async fn count(&self, _: u32) -> Result<u64, Error> {
        unreachable!()
    }

    async fn add_hashes(&self, _: u32, _: u64, _: &[Hash]) -> Result<(), Error> {
        unreachable!()
    }

    async fn checkpoint(&self) -> Result<Option<SignedCheckpoint>, Error> {
        unreachable!()
    }

    async fn checkpoints(&self, _: u64, _: usize) -> Result<Vec<SignedCheckpoint>, Error> {
        unreachable!()
    }

    async fn add_checkpoint(&self, _: &SignedCheckpoint) -> Result<bool, Error> {
        unreachable!()
    }

    async fn has_strays(&self) -> Result<bool, Error> {
        unreachable!()
    }

    async fn adopt_key(&self, _: &str) -> Result<String, Error> {
        unreachable!()
    }

    async fn key(&self) -> Result<Option<String>, Error> {
        unreachable!()
    }
}

#[async_trait]
impl History for Uniform {
    async fn leaf_hashes(&self, _: Position, limit: usize) -> Result<Vec<Hash>, Error> {
        Ok(self.read(0, limit))
    }

    async fn head(&self) -> Result<Head, Error> {
        unreachable!()
    }

    fn watch_head(&self) -> tokio::sync::watch::Receiver<Position> {
        unreachable!()
    }

    async fn read(&self, _: Position, _: usize) -> Result<Vec<StoredEvent>, Error> {
        unreachable!()
    }

    async fn read_user(&self, _: &UserId, _: Version, _: usize) -> Result<Vec<StoredEvent>, Error> {
        unreachable!()
    }

    async fn read_user_back(
        &self,
        _: &UserId,
        _: Version,
        _: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        unreachable!()
    }

    async fn read_users(
        &self,
        _: &[UserId],
        _: Position,
        _: usize,
    ) -> Result<Vec<StoredEvent>, Error> {
        unreachable!()
    }

    async fn claims(&self, _: &[String]) -> Result<Vec<Claim>, Error> {
        unreachable!()
    }

    async fn claims_after(&self, _: &str, _: usize) -> Result<Vec<Claim>, Error> {
        unreachable!()
    }

    async fn outcomes(&self, _: &[OutcomeKey]) -> Result<Vec<Outcome>, Error> {
        unreachable!()
    }

    async fn position_of(&self, _: &EventId) -> Result<Option<Position>, Error> {
        unreachable!()
    }

    async fn has_strays(&self) -> Result<bool, Error> {
        unreachable!()
    }
}

#[tokio::test]
async fn a_proof_over_ten_million_events_reads_a_few_tiles() {
    let uniform = Uniform {
        leaf: [7; 32],
        reads: AtomicUsize::new(0),
    };
    let size = 10_000_019;
    let mut reader = TreeReader::new(&uniform, &uniform, size);
    let root = reader.root().await.unwrap();
    for from in [1, 255, 256, 65_537, 9_999_999, size - 1] {
        uniform.reads.store(0, Ordering::Relaxed);
        let mut reader = TreeReader::new(&uniform, &uniform, size);
        let proof = reader.inclusion(from).await.unwrap();
        assert!(is_included(&uniform.leaf, from, size, &proof, &root));
        let proof = reader.consistency(from).await.unwrap();
        let earlier = TreeReader::new(&uniform, &uniform, from)
            .root()
            .await
            .unwrap();
        assert!(is_consistent((from, &earlier), (size, &root), &proof));
        // Three levels of tiles; of each the tiles of the event and of both trees' ends.
        let reads = uniform.reads.load(Ordering::Relaxed);
        assert!(reads <= 3 * 4, "{reads} tiles read from {from}");
    }
}
