//! Compares the ledger with every stored hash and every signed checkpoint.

use std::collections::VecDeque;

use anyhow::Context as _;
use events::{Position, StoredEvent};
use ledger::merkle::note::{Checkpoint, PublicKey};
use ledger::merkle::tree::{Hash, TILE, perfect};
use ledger::merkle::verify::{Fault, Verifier, open};
use ledger::merkle::{LogStore, SignedCheckpoint};
use ledger::store::{self, Head, History};

use super::claims::Claims;
use super::{Args, PAGE, Report, checkpoint};
use crate::log_key;

/// Checkpoints that are read at once.
const CHECKPOINTS: usize = 1_000;
/// The levels of hashes if positions use all 64 bits.
const LEVELS: u32 = 8;

/// Reads the events one by one.
pub(super) async fn verify(
    history: &dyn History,
    log: &dyn LogStore,
    args: &Args,
    verifier: &mut Verifier,
    report: &mut Report,
) -> anyhow::Result<()> {
    let head = history.head().await?;
    let key = key(log, args, &head).await?;
    let head = head.position;
    if history.has_strays().await? || log.has_strays().await? {
        let what = "a row is stored before the first position";
        return Err(Fault::at(1, what).into());
    }
    let mut checkpoints = Checkpoints::default();
    checkpoints.trust(args, key.as_ref())?;
    let mut levels = Levels::default();
    let mut claims = Claims::default();
    let mut page = read(history, 0).await?;
    while !page.is_empty() {
        let after = page.last().map_or(0, |event| event.position);
        let (next, checked) = tokio::join!(read(history, after), async {
            for event in page.iter().filter(|event| event.position <= head) {
                claims.event(&verifier.event(event)?);
                levels.push(log, event.leaf_hash.0).await?;
                if let Some(key) = &key {
                    report.checkpoints += checkpoints.confirm(log, key, verifier).await?;
                }
            }
            anyhow::Ok(())
        });
        checked?;
        page = next?;
    }
    let missing = |position, what: String| {
        let what = format!("the event is missing: {what}");
        anyhow::Result::Err(Fault::at(position, what).into())
    };
    if verifier.size() < head {
        return missing(verifier.size() + 1, "the head is beyond it".to_owned());
    }
    // The signed events must still exist. Newer checkpoints cover events that came meanwhile.
    let newest = checkpoints.end(log).await?;
    let beyond = read(history, head).await?;
    let now = history.head().await?;
    if newest > now.position {
        return missing(now.position + 1, format!("{newest} were signed"));
    }
    if let Some(event) = beyond.iter().find(|event| event.position > now.position) {
        return Err(Fault::at(event.position, "the head is before the event").into());
    }
    if verifier
        .recorded_at()
        .is_some_and(|last| last > now.recorded_at)
    {
        return Err(Fault::at(head, "the event was recorded after the head").into());
    }
    if let Some(trusted) = &checkpoints.trusted {
        let what = format!("the checkpoint covers {} events", trusted.size);
        return missing(verifier.size() + 1, what);
    }
    are_all(log, newest, history).await?;
    claims.verify(history, verifier.size()).await
}

/// The key that verifies the checkpoints: the given one, which must be the stored one. If checkpoints exist, a missing
/// stored key is a fault.
async fn key(log: &dyn LogStore, args: &Args, head: &Head) -> anyhow::Result<Option<PublicKey>> {
    // In this order: a log that is signed for the first time meanwhile has stored its key before.
    let is_signed = !log.checkpoints(0, 1).await?.is_empty();
    let kept = log.key().await?;
    let fault = |what: &str| {
        let what = format!("the stored key of the log {what}");
        Fault::within(1, head.position.max(1), what)
    };
    let kept = match kept {
        Some(kept) => Some(PublicKey::parse(&kept).map_err(|_| fault("is malformed"))?),
        None if is_signed => return Err(fault("is missing").into()),
        None => None,
    };
    // The name of a key that this program made contains the id of its ledger.
    let ledger = kept
        .as_ref()
        .and_then(|kept| kept.name().strip_prefix(log_key::NAME));
    if ledger.is_some_and(|ledger| ledger != head.store_id) {
        return Err(fault("belongs to another ledger").into());
    }
    match (&args.public_key, kept) {
        (Some(given), Some(kept)) if *given != kept => {
            Err(fault("differs from the given one").into())
        }
        (Some(given), _) => Ok(Some(given.clone())),
        (None, kept) => Ok(kept),
    }
}

/// The events after a position, up to the first one in a form that this program never writes.
async fn read(history: &dyn History, after: Position) -> anyhow::Result<Vec<StoredEvent>> {
    match history.read(after, PAGE).await {
        Err(store::Error::Damaged(_)) => {}
        read => return Ok(read?),
    }
    let mut events: Vec<StoredEvent> = Vec::new();
    loop {
        let last = events.last().map_or(after, |event| event.position);
        match history.read(last, 1).await {
            Ok(one) if one.is_empty() => return Ok(events),
            Ok(one) => events.extend(one),
            Err(store::Error::Damaged(what)) if events.is_empty() => {
                return Err(Fault::at(after + 1, what).into());
            }
            Err(store::Error::Damaged(_)) => return Ok(events),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Every hash of signed events must be stored, and no hash of events that do not exist.
async fn are_all(log: &dyn LogStore, signed: u64, history: &dyn History) -> anyhow::Result<()> {
    for level in 1..=LEVELS {
        let leaves = 1_u128 << (8 * level);
        let kept = log.count(level).await?;
        let head = history.head().await?.position;
        let end = |hashes: u64| u64::try_from(u128::from(hashes) * leaves).unwrap_or(u64::MAX);
        if u128::from(kept) > u128::from(head) / leaves {
            let what = "a hash is stored for events that do not exist";
            return Err(Fault::within(head + 1, end(kept).max(head + 1), what).into());
        }
        if u128::from(kept) < u128::from(signed) / leaves {
            let what = "the hash of these signed events is missing";
            return Err(Fault::within(end(kept) + 1, end(kept + 1), what).into());
        }
    }
    Ok(())
}

/// Computes inner hashes and compares them with the stored ones.
#[derive(Default)]
struct Levels {
    /// For each level: the hashes since the last full tile, and the number of full tiles.
    tiles: Vec<(Vec<Hash>, u64)>,
}

impl Levels {
    async fn push(&mut self, log: &dyn LogStore, leaf: Hash) -> anyhow::Result<()> {
        let mut hash = leaf;
        for level in 0.. {
            if self.tiles.len() <= level {
                self.tiles.push((Vec::new(), 0));
            }
            let (tile, full) = &mut self.tiles[level];
            tile.push(hash);
            if (tile.len() as u64) < TILE {
                break;
            }
            hash = perfect(tile);
            tile.clear();
            let (index, above) = (*full, u32::try_from(level + 1)?);
            *full += 1;
            let kept = log.hashes(above, index, 1).await?;
            // The service has not computed this hash yet.
            if kept.first().is_some_and(|kept| *kept != hash) {
                let leaves = TILE.pow(above);
                return Err(Fault::within(
                    index * leaves + 1,
                    (index + 1) * leaves,
                    "the events differ from their stored hash",
                )
                .into());
            }
        }
        Ok(())
    }
}

/// Checkpoints in their order.
#[derive(Default)]
struct Checkpoints {
    kept: VecDeque<SignedCheckpoint>,
    /// Number and size of the last checkpoint that was read.
    last: (u64, u64),
    is_at_end: bool,
    /// A checkpoint from elsewhere.
    trusted: Option<Checkpoint>,
}

impl Checkpoints {
    /// Adds a checkpoint from elsewhere.
    fn trust(&mut self, args: &Args, key: Option<&PublicKey>) -> anyhow::Result<()> {
        let Some(path) = &args.checkpoint else {
            return Ok(());
        };
        let key = key.context("no stored key can verify the checkpoint: set --public-key")?;
        self.trusted = Some(checkpoint(path, key)?);
        Ok(())
    }

    /// Compares every checkpoint that covers exactly the events so far. Returns the number of them.
    async fn confirm(
        &mut self,
        log: &dyn LogStore,
        key: &PublicKey,
        verifier: &mut Verifier,
    ) -> anyhow::Result<u64> {
        let size = verifier.size();
        let mut confirmed = 0;
        if self.kept.is_empty() && !self.is_at_end {
            let page = self.page(log).await?;
            self.is_at_end = page.len() < CHECKPOINTS;
            self.kept = page.into();
        }
        let signed = self.kept.pop_front_if(|signed| signed.size == size);
        if let Some(trusted) = self.trusted.take_if(|trusted| trusted.size == size) {
            verifier.confirm(&trusted)?;
            confirmed += 1;
            if signed.is_none() {
                let what = "the given checkpoint is not among the stored ones";
                return Err(Fault::at(size, what).into());
            }
        }
        if let Some(signed) = signed {
            verifier.confirm(&open(key, size, &signed.note)?)?;
            confirmed += 1;
        }
        Ok(confirmed)
    }

    /// The next checkpoints. None may be missing, and each must cover more events than the one before.
    async fn page(&mut self, log: &dyn LogStore) -> anyhow::Result<Vec<SignedCheckpoint>> {
        let page = log.checkpoints(self.last.0, CHECKPOINTS).await?;
        for next in &page {
            let (number, size) = self.last;
            if next.number != number + 1 || next.size <= size {
                let what = format!(
                    "checkpoint {} is missing or covers another number of events; found {} over {}",
                    number + 1,
                    next.number,
                    next.size
                );
                return Err(Fault::within(size + 1, next.size.max(size + 1), what).into());
            }
            self.last = (next.number, next.size);
        }
        Ok(page)
    }

    /// Reads up to the last checkpoint, which must have the last number. Returns its size.
    async fn end(&mut self, log: &dyn LogStore) -> anyhow::Result<u64> {
        while !self.page(log).await?.is_empty() {}
        // The next one may have been signed a moment ago.
        let newest = match log.checkpoint().await {
            Err(store::Error::Damaged(what)) => return Err(Fault::at(self.last.1 + 1, what).into()),
            newest => newest?.map_or((0, 0), |newest| (newest.number, newest.size)),
        };
        if newest.0 < self.last.0 {
            let what = format!(
                "checkpoint {} is stored, but {} were signed",
                self.last.0, newest.0
            );
            return Err(Fault::at(self.last.1, what).into());
        }
        Ok(newest.1)
    }
}
