//! The aggregate: every rule about what may happen to a user. Pure; time and ids come in.

use std::sync::Arc;

use events::document::{Document, FoldError, fold};
use events::envelope::Previous;
use events::event::{
    Consents, PhotoChanged, ProfileUpdated, UserEvent, UserRegistered, UsernameChanged, Variant,
};
use events::{PhotoId, Recorded, Time, UserId, Version};
use http_kit::username::Username;
use ledger::store::Claim;
use serde::{Deserialize, Serialize};

use crate::values::{NewProfile, Registration};

/// Days between two changes of a username by its user, and days for which the old name is held.
pub const USERNAME_DAYS: i64 = 30;

/// What the rules need to know of a user: the fold of its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// What the user is; shared with the answers to its commands.
    pub document: Arc<Document>,
    /// When the user last changed its username. Registration does not count.
    pub username_changed_at: Option<Time>,
    /// The newest event, which the next one will name.
    pub last: Previous,
}

/// What a client wants to happen to a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make the user exist.
    Register(Box<Registration>),
    /// Replace all that the user may replace.
    ReplaceProfile(Box<NewProfile>),
    /// Set a new photo, whose bytes are stored already.
    ChangePhoto(Box<NewPhoto>),
    /// Take another username.
    ChangeUsername(Username),
}

impl Action {
    /// The username that the action takes: its claim must be known to decide.
    pub fn wanted_username(&self) -> Option<&Username> {
        match self {
            Self::Register(registration) => Some(&registration.username),
            Self::ChangeUsername(username) => Some(username),
            Self::ReplaceProfile(_) | Self::ChangePhoto(_) => None,
        }
    }
}

/// A new photo, as the pipeline made and stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPhoto {
    /// New for each change.
    pub photo_id: PhotoId,
    /// SHA-256 of the upload, in hexadecimal digits.
    pub content_hash: String,
    /// Bytes of the upload.
    pub size: u64,
    /// What the upload was.
    pub media_type: String,
    /// Pixels of the upload.
    pub width: u32,
    /// Pixels of the upload.
    pub height: u32,
    /// File name of the main rendition.
    pub main: String,
    /// The small renditions.
    pub variants: Vec<Variant>,
}

/// Why an action was refused. Stored with its idempotency key, so the shape stays readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// No such user.
    #[error("no such user")]
    NoSuchUser,
    /// A user with this id is registered already.
    #[error("the user is already registered")]
    UserExists {
        /// Who.
        user_id: UserId,
    },
    /// Another user has the name.
    #[error("the username is taken")]
    UsernameTaken {
        /// The name.
        username: String,
    },
    /// The name is held for the user who gave it up.
    #[error("the username is held")]
    UsernameHeld {
        /// The name.
        username: String,
        /// Until when.
        until: Time,
    },
    /// The last change is less than [`USERNAME_DAYS`] ago.
    #[error("the username was changed too recently")]
    UsernameChangeTooSoon {
        /// From when it may be changed.
        next: Time,
    },
    /// The client decided on another version of the user.
    #[error("the user has another version")]
    VersionMismatch {
        /// What the client saw.
        expected: Version,
        /// What it is.
        actual: Version,
    },
}

/// What an action on a user comes to at a time: the events to append, none when nothing would
/// change, or why not. `claim` is that of the wanted username, if anybody ever had it; `expected`
/// is the version that the client decided on.
pub fn decide(
    user_id: UserId,
    user: Option<&User>,
    claim: Option<&Claim>,
    action: &Action,
    expected: Option<Version>,
    now: Time,
) -> Result<Vec<UserEvent>, Rejection> {
    if let (Action::Register(registration), None) = (action, user) {
        // Who is not there yet has version 0.
        if let Some(expected) = expected.filter(|expected| *expected != 0) {
            return Err(Rejection::VersionMismatch {
                expected,
                actual: 0,
            });
        }
        take(&user_id, &registration.username, claim, now)?;
        return Ok(vec![UserEvent::UserRegistered(Box::new(registered(
            registration,
        )))]);
    }
    let user = user.ok_or(Rejection::NoSuchUser)?;
    let actual = user.document.version;
    if let Some(expected) = expected.filter(|expected| *expected != actual) {
        return Err(Rejection::VersionMismatch { expected, actual });
    }
    match action {
        Action::Register(_) => Err(Rejection::UserExists { user_id }),
        Action::ReplaceProfile(profile) => {
            let changes = ProfileUpdated::between(&user.document.profile, profile.as_inner());
            Ok(changes
                .map(|changes| UserEvent::ProfileUpdated(Box::new(changes)))
                .into_iter()
                .collect())
        }
        Action::ChangePhoto(photo) => Ok(change_photo(user, photo).into_iter().collect()),
        Action::ChangeUsername(username) => change_username(user_id, user, claim, username, now),
    }
}

/// The user after one more event.
pub fn apply<C>(
    user: Option<User>,
    recorded: &Recorded<C>,
    last: Previous,
) -> Result<User, FoldError> {
    let (document, username_changed_at) = match user {
        Some(user) => (
            Some(Arc::unwrap_or_clone(user.document)),
            user.username_changed_at,
        ),
        None => (None, None),
    };
    let username_changed_at = match &recorded.event {
        UserEvent::UsernameChanged(_) => Some(recorded.recorded_at),
        UserEvent::UserRegistered(_)
        | UserEvent::ProfileUpdated(_)
        | UserEvent::PhotoChanged(_) => username_changed_at,
    };
    Ok(User {
        document: Arc::new(fold(document, recorded)?),
        username_changed_at,
        last,
    })
}

fn registered(registration: &Registration) -> UserRegistered {
    let registration = registration.clone();
    UserRegistered {
        username: registration.username.to_string(),
        profile: registration.profile.into_inner(),
        country_code: registration.country_code,
        phone_number: registration.phone_number,
        consents: registration.consents,
        is_registration_complete: registration.is_registration_complete,
        roles: registration.roles,
        last_login: registration.last_login,
    }
}

fn change_photo(user: &User, photo: &NewPhoto) -> Option<UserEvent> {
    let current = user.document.photo.as_ref();
    if current.is_some_and(|current| current.content_hash == photo.content_hash) {
        return None;
    }
    let photo = photo.clone();
    Some(UserEvent::PhotoChanged(Box::new(PhotoChanged {
        photo_id: photo.photo_id,
        content_hash: photo.content_hash,
        size: photo.size,
        media_type: photo.media_type,
        width: photo.width,
        height: photo.height,
        main: photo.main,
        variants: photo.variants,
        previous_photo_id: current.map(|current| current.id),
    })))
}

fn change_username(
    user_id: UserId,
    user: &User,
    claim: Option<&Claim>,
    username: &Username,
    now: Time,
) -> Result<Vec<UserEvent>, Rejection> {
    if user.document.username == username.as_str() {
        return Ok(Vec::new());
    }
    if let Some(next) = user
        .username_changed_at
        .map(|last| last.plus_days(USERNAME_DAYS))
        .filter(|next| now < *next)
    {
        return Err(Rejection::UsernameChangeTooSoon { next });
    }
    take(&user_id, username, claim, now)?;
    Ok(vec![UserEvent::UsernameChanged(UsernameChanged {
        before: user.document.username.clone(),
        after: username.to_string(),
        held_until: now.plus_days(USERNAME_DAYS),
    })])
}

fn take(
    user_id: &UserId,
    username: &Username,
    claim: Option<&Claim>,
    now: Time,
) -> Result<(), Rejection> {
    let username = username.to_string();
    match claim {
        Some(claim) if !claim.is_free_for(user_id, now) => Err(match claim.held_until {
            Some(until) => Rejection::UsernameHeld { username, until },
            None => Rejection::UsernameTaken { username },
        }),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
