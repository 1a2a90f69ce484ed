//! The contract of every store of the Merkle log, and of the integrator on top of it.

use std::sync::Arc;

use super::note::{PublicKey, Signer};
use super::tree::{Hash, is_consistent, is_included};
use super::{Integrator, LogStore, SignedCheckpoint, TreeReader};
use crate::test_ledger::TestLedger;

pub(super) async fn run_all(open: impl AsyncFn() -> Arc<dyn LogStore>) {
    values_that_are_added_again_are_skipped(&*open().await).await;
    the_first_key_stays(&*open().await).await;
    several_integrators_build_one_tree_that_proves_every_event(open().await).await;
    another_key_signs_nothing(open().await).await;
}

fn checkpoint(number: u64, size: u64) -> SignedCheckpoint {
    SignedCheckpoint {
        number,
        size,
        note: format!("note {size}"),
    }
}

/// Stores something of every kind.
pub(super) async fn fill(log: &dyn LogStore) {
    log.add_hashes(1, 0, &[[0; 32], [1; 32], [2; 32]])
        .await
        .unwrap();
    log.add_checkpoint(&checkpoint(1, 5)).await.unwrap();
    log.adopt_key("a key").await.unwrap();
}

async fn values_that_are_added_again_are_skipped(log: &dyn LogStore) {
    assert_eq!(log.count(1).await.unwrap(), 0);
    assert_eq!(log.checkpoint().await.unwrap(), None);
    let hashes: Vec<Hash> = (0..6).map(|n| [n; 32]).collect();
    log.add_hashes(1, 0, &hashes[..3]).await.unwrap();
    log.add_hashes(1, 1, &hashes[1..5]).await.unwrap();
    log.add_hashes(1, 0, &hashes[..2]).await.unwrap();
    log.add_hashes(2, 0, &hashes[5..]).await.unwrap();
    assert_eq!(log.count(1).await.unwrap(), 5);
    assert_eq!(log.count(2).await.unwrap(), 1);
    assert_eq!(log.hashes(1, 1, 3).await.unwrap(), hashes[1..4]);
    assert_eq!(log.hashes(1, 4, 300).await.unwrap(), hashes[4..5]);
    assert_eq!(log.hashes(2, 0, 300).await.unwrap(), hashes[5..]);
    assert_eq!(log.hashes(9, u64::MAX, 300).await.unwrap(), [[0; 32]; 0]);

    for (number, size, is_next) in [
        (2, 3, false),
        (1, 3, true),
        (1, 4, false),
        (2, 8, true),
        (4, 9, false),
    ] {
        let added = log.add_checkpoint(&checkpoint(number, size)).await;
        assert_eq!(added.unwrap(), is_next, "{number}");
    }
    assert_eq!(log.checkpoint().await.unwrap(), Some(checkpoint(2, 8)));
    let all = log.checkpoints(0, 10).await.unwrap();
    assert_eq!(all, [checkpoint(1, 3), checkpoint(2, 8)]);
    assert_eq!(log.checkpoints(1, 10).await.unwrap(), [checkpoint(2, 8)]);
    assert_eq!(log.checkpoints(0, 1).await.unwrap(), [checkpoint(1, 3)]);
    assert!(
        log.add_checkpoint(&checkpoint(3, 8)).await.is_err(),
        "sizes grow"
    );
    assert_eq!(log.checkpoint().await.unwrap(), Some(checkpoint(2, 8)));
}

async fn the_first_key_stays(log: &dyn LogStore) {
    assert_eq!(log.key().await.unwrap(), None);
    assert_eq!(log.adopt_key("first").await.unwrap(), "first");
    assert_eq!(log.adopt_key("second").await.unwrap(), "first");
    assert_eq!(log.key().await.unwrap().as_deref(), Some("first"));
}

fn signer() -> Signer {
    Signer::new("example.com/log", [3; 32]).unwrap()
}

async fn several_integrators_build_one_tree_that_proves_every_event(log: Arc<dyn LogStore>) {
    let ledger = TestLedger::new("proven").await;
    let history = ledger.history();
    let key: PublicKey = signer().public_key();
    let mut signed: Vec<(u64, Hash)> = Vec::new();
    // Within a tile, at its end, just beyond it, and over several.
    for more in [1, 254, 1, 1, 600] {
        let size = ledger.grow(more).await;
        let one = Integrator::new(Arc::clone(&history), Arc::clone(&log), signer());
        let other = Integrator::new(Arc::clone(&history), Arc::clone(&log), signer());
        let (first, second) = tokio::join!(one.step(), other.step());
        // An integrator that was overtaken in between sees it at its next step.
        assert!(first.is_ok() || second.is_ok(), "{first:?} {second:?}");
        assert_eq!(one.step().await.unwrap(), size);

        let newest = log.checkpoint().await.unwrap().unwrap();
        let checkpoint = key.open(&newest.note).unwrap();
        assert_eq!((newest.size, checkpoint.size), (size, size));
        let mut reader = TreeReader::new(&*history, &*log, size);
        assert_eq!(reader.root().await.unwrap(), checkpoint.root);
        for event in history.read(0, 1000).await.unwrap() {
            let index = event.position - 1;
            let proof = reader.inclusion(index).await.unwrap();
            let leaf = event.leaf_hash.0;
            assert!(is_included(&leaf, index, size, &proof, &checkpoint.root));
        }
        for (old, old_root) in &signed {
            let proof = reader.consistency(*old).await.unwrap();
            let (old, new) = ((*old, old_root), (size, &checkpoint.root));
            assert!(is_consistent(old, new, &proof));
        }
        signed.push((size, checkpoint.root));
    }
    assert_eq!(log.count(1).await.unwrap(), 3);
    assert_eq!(log.checkpoints(0, 100).await.unwrap().len(), 5);
}

async fn another_key_signs_nothing(log: Arc<dyn LogStore>) {
    let ledger = TestLedger::new("one key").await;
    ledger.grow(1).await;
    let own = Integrator::new(ledger.history(), Arc::clone(&log), signer());
    assert_eq!(own.step().await.unwrap(), 1);
    ledger.grow(1).await;
    let stranger = Signer::new("example.com/log", [4; 32]).unwrap();
    let stranger = Integrator::new(ledger.history(), Arc::clone(&log), stranger);
    let error = stranger.step().await.unwrap_err().to_string();
    assert!(error.contains("--log-key"), "{error}");
    assert_eq!(log.checkpoint().await.unwrap().unwrap().size, 1);
}
