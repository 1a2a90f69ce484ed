//! Compares the stored claims to usernames with the claims that follow from the events.

use std::collections::{HashMap, HashSet};

use events::envelope::Recorded;
use events::{Position, Time, UserId};
use http_kit::clock::Clock;
use ledger::merkle::verify::Fault;
use ledger::store::{Claim, History, claims_of};
use sha2::{Digest as _, Sha256};

use super::PAGE;

/// The most differing claims in memory. Events that came meanwhile may explain them.
const DIFFERING: usize = 1_000;
/// A service whose clock is ahead removes claims up to this many milliseconds earlier.
const AHEAD: i64 = 60 * 60 * 1_000;

/// A short hash of a username, to save memory.
type Name = [u8; 16];

fn name(username: &str) -> Name {
    let hash: [u8; 32] = Sha256::digest(username).into();
    let (first, _) = hash.as_chunks();
    first[0]
}

/// The claims that follow from the events.
#[derive(Default)]
pub(super) struct Claims(HashMap<Name, Said>);

/// The last claim to a username.
struct Said {
    user: UserId,
    held_until: Option<Time>,
    /// The position of the event.
    position: Position,
    /// Whether the same claim is stored.
    is_kept: bool,
}

impl Claims {
    /// Takes the next event.
    pub(super) fn event(&mut self, recorded: &Recorded) {
        for claim in claims_of(&recorded.user_id, &recorded.event) {
            let said = Said {
                user: claim.user_id,
                held_until: claim.held_until,
                position: recorded.position,
                is_kept: false,
            };
            self.0.insert(name(&claim.username), said);
        }
    }

    /// Compares every stored claim with the events up to a position.
    pub(super) async fn verify(
        mut self,
        history: &dyn History,
        size: Position,
    ) -> anyhow::Result<()> {
        let mut differing: Vec<Name> = Vec::new();
        let mut after = String::new();
        loop {
            let page = history.claims_after(&after, PAGE).await?;
            for claim in &page {
                if !self.is_said(claim) && differing.len() < DIFFERING {
                    differing.push(name(&claim.username));
                }
            }
            match page.last() {
                Some(last) if page.len() == PAGE => after.clone_from(&last.username),
                _ => break,
            }
        }
        let changed = changed_since(history, size).await?;
        let forgotten = Time::from(Clock::system().now()).millis() + AHEAD;
        let missing = self.0.iter().filter(|(_, said)| {
            !said.is_kept
                && said
                    .held_until
                    .is_none_or(|until| until.millis() > forgotten)
        });
        let faults = missing.map(|(name, _)| name).chain(&differing);
        let faults =
            faults
                .filter(|name| !changed.contains(*name))
                .map(|name| match self.0.get(name) {
                    Some(said) => Fault::at(
                        said.position,
                        "the claim to the username of this event is missing or differs",
                    ),
                    None => {
                        Fault::within(1, size.max(1), "a claim to a username belongs to no event")
                    }
                });
        Ok(faults.min_by_key(|fault| fault.from).map_or(Ok(()), Err)?)
    }

    fn is_said(&mut self, claim: &Claim) -> bool {
        match self.0.get_mut(&name(&claim.username)) {
            Some(said) if said.user == claim.user_id && said.held_until == claim.held_until => {
                said.is_kept = true;
                true
            }
            _ => false,
        }
    }
}

/// The usernames in events after a position.
async fn changed_since(history: &dyn History, size: Position) -> anyhow::Result<HashSet<Name>> {
    let mut changed = HashSet::new();
    let mut after = size;
    loop {
        let events = history.read(after, PAGE).await?;
        for event in &events {
            after = event.position;
            if let Ok(recorded) = event.decode() {
                let claims = claims_of(&recorded.user_id, &recorded.event);
                changed.extend(claims.iter().map(|claim| name(&claim.username)));
            }
        }
        if events.len() < PAGE {
            return Ok(changed);
        }
    }
}
