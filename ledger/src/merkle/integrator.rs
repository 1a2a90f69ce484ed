//! The task that extends the Merkle tree with the ledger and signs checkpoints.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::note::Signer;
use super::tree::{TILE, perfect};
use super::{LogStore, SignedCheckpoint, TreeReader};
use crate::backoff::Backoff;
use crate::store::{Error, History};
use events::Position;
use events::chain;

/// The shortest time between two checkpoints.
const PAUSE: Duration = Duration::from_secs(1);
/// The wait after a failure.
const RETRY: Duration = Duration::from_secs(2);
/// The number of hashes stored at once.
const AT_ONCE: usize = 256;

/// Follows the ledger, computes inner hashes, and signs checkpoints. Any number of integrators may
/// run at once: they all compute the same hashes.
pub struct Integrator {
    history: Arc<dyn History>,
    log: Arc<dyn LogStore>,
    signer: Signer,
    head: watch::Receiver<Position>,
}

impl Integrator {
    /// An integrator that signs with the given key.
    pub fn new(history: Arc<dyn History>, log: Arc<dyn LogStore>, signer: Signer) -> Self {
        Self {
            head: history.watch_head(),
            history,
            log,
            signer,
        }
    }

    /// Runs until the ledger is closed. Failed steps are retried without limit.
    pub async fn run(mut self) {
        let mut backoff = Backoff::every(RETRY);
        loop {
            let signed = match self.step().await {
                Ok(size) => {
                    backoff.succeeded();
                    size
                }
                Err(error) => {
                    if backoff.failed() {
                        tracing::warn!(error = chain(&error), "No checkpoint can be signed");
                    }
                    backoff.wait().await;
                    continue;
                }
            };
            tokio::time::sleep(PAUSE).await;
            if self.head.wait_for(|head| *head > signed).await.is_err() {
                return;
            }
        }
    }

    /// Extends the tree to the ledger's head and signs it. Returns the signed size.
    pub async fn step(&self) -> Result<Position, Error> {
        let own = self.signer.public_key().to_string();
        let key = self.log.adopt_key(&own).await?;
        if key != own {
            // With two keys, one log would have two histories that nobody can compare.
            return Err(Error::Damaged(format!(
                "the log's checkpoints are signed by {key}, not by the key of this process, {own}: give it that key with --log-key"
            )));
        }
        let head = self.history.head().await?.position;
        let (number, signed) = self
            .log
            .checkpoint()
            .await?
            .map_or((0, 0), |last| (last.number, last.size));
        if head <= signed {
            return Ok(signed);
        }
        self.integrate(head).await?;
        let mut reader = TreeReader::new(&*self.history, &*self.log, head);
        let root = reader.root().await?;
        let next = SignedCheckpoint {
            number: number + 1,
            size: head,
            note: self.signer.sign(head, &root),
        };
        if self.log.add_checkpoint(&next).await? {
            return Ok(head);
        }
        // Another process signed meanwhile, perhaps a smaller tree.
        Ok(self.log.checkpoint().await?.map_or(0, |last| last.size))
    }

    /// Computes every inner hash of a tree of this size.
    async fn integrate(&self, size: u64) -> Result<(), Error> {
        let mut below = size;
        for level in 1.. {
            let of_level = below / TILE;
            if of_level == 0 {
                break;
            }
            let mut next = self.log.count(level).await?;
            while next < of_level {
                let mut hashes = Vec::with_capacity(AT_ONCE);
                let mut reader = TreeReader::new(&*self.history, &*self.log, size);
                while next + (hashes.len() as u64) < of_level && hashes.len() < AT_ONCE {
                    let index = next + hashes.len() as u64;
                    hashes.push(perfect(reader.tile(level - 1, index).await?));
                }
                self.log.add_hashes(level, next, &hashes).await?;
                next += hashes.len() as u64;
            }
            below = of_level;
        }
        Ok(())
    }
}
