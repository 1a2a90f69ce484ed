//! Commands as load: the requests of clients, and the events that the ledger must then hold.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::http::{Answer, Sent};
use crate::load::{Outcome, Pace, Script, drive, follows};
use crate::pictures;
use crate::random::Random;
use crate::service::Service;
use crate::users::{self, Users};

/// The kinds of commands, as numbers out of 100. The others change profiles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mix {
    pub(crate) usernames: u64,
    pub(crate) photos: u64,
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parse = || {
            let (usernames, photos) = text.split_once(',')?;
            let (usernames, photos) = (usernames.parse().ok()?, photos.parse().ok()?);
            (usernames <= 100 && photos <= 100 - usernames).then_some(Self { usernames, photos })
        };
        parse().ok_or_else(|| "two numbers such as 5,5 whose sum is at most 100".to_owned())
    }
}

/// Commands of many users, and the head that the ledger must have after them.
pub(crate) struct Load {
    users: Arc<Users>,
    mix: Mix,
    photo: Arc<Vec<u8>>,
    numbers: Arc<AtomicU64>,
    renamed: Arc<AtomicU64>,
    /// The last position of the ledger.
    pub(crate) head: u64,
}

impl Load {
    /// A load on a ledger that holds only the registrations of these users.
    pub(crate) fn new(users: Arc<Users>, mix: Mix) -> Self {
        Self {
            head: users.count,
            users,
            mix,
            photo: Arc::new(pictures::jpeg(512, 512)),
            numbers: Arc::default(),
            renamed: Arc::default(),
        }
    }

    /// A load of profile changes only.
    pub(crate) fn profiles(users: Arc<Users>) -> Self {
        Self::new(
            users,
            Mix {
                usernames: 0,
                photos: 0,
            },
        )
    }

    /// A token of one of the users.
    pub(crate) fn token(&self) -> String {
        self.users.token(0).into_owned()
    }

    pub(crate) fn script(&self, client: u64) -> Commands {
        Commands {
            users: Arc::clone(&self.users),
            mix: self.mix,
            photo: Arc::clone(&self.photo),
            numbers: Arc::clone(&self.numbers),
            renamed: Arc::clone(&self.renamed),
            random: Random::new(client),
        }
    }

    /// Sends commands for a given time. Fails if two acknowledged commands share a position or if the positions have a gap.
    pub(crate) async fn send(
        &mut self,
        service: &Service,
        clients: u32,
        pace: Pace,
        time: std::time::Duration,
    ) -> anyhow::Result<Outcome> {
        let scripts = (0..u64::from(clients))
            .map(|client| self.script(client))
            .collect();
        let outcome = drive(service, scripts, pace, time).await?;
        self.head = follows(self.head, &outcome.positions)?;
        let (path, token) = ("/api/v1/users/profile", self.users.token(0));
        service.await_position(self.head, path, &token).await?;
        Ok(outcome)
    }
}

/// The requests of one client.
pub(crate) struct Commands {
    users: Arc<Users>,
    mix: Mix,
    photo: Arc<Vec<u8>>,
    numbers: Arc<AtomicU64>,
    renamed: Arc<AtomicU64>,
    random: Random,
}

impl Script for Commands {
    fn next(&mut self) -> Sent {
        let user = self.random.below(self.users.count);
        let kind = self.random.below(100);
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        if kind < self.mix.usernames {
            // Each user once. After the last user, changes of profiles take over.
            let user = self.renamed.fetch_add(1, Ordering::Relaxed);
            if user < self.users.count {
                return users::rename(&self.users.token(user), user);
            }
        }
        let token = self.users.token(user);
        if kind >= self.mix.usernames && kind < self.mix.usernames + self.mix.photos {
            return users::photo(&token, "image/jpeg", &self.photo, number);
        }
        users::profile(&token, number)
    }

    /// A user may have one upload at a time, and a process a few. Therefore an upload may correctly be told to wait.
    fn is_good(&self, answer: &Answer) -> bool {
        answer.status == 200 || self.mix.photos > 0 && [429, 503].contains(&answer.status)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mix_is_two_shares_of_a_hundred() {
        assert_eq!(
            "5,10".parse(),
            Ok(Mix {
                usernames: 5,
                photos: 10
            })
        );
        for bad in ["", "5", "5,", "101,0", "60,60", "-1,0", "a,b"] {
            assert!(bad.parse::<Mix>().is_err(), "{bad}");
        }
    }
}
