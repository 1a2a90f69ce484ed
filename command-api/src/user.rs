//! The aggregate: every rule about changes of a user. Pure; time and ids are arguments.

use std::sync::Arc;

use events::document::{Document, FoldError, fold};
use events::envelope::Previous;
use events::event::{
    PhotoChanged, ProfileUpdated, UserEvent, UserRegistered, UsernameChanged, Variant,
};
use events::{PhotoId, Recorded, Time, UserId, Version};
use http_kit::username::Username;
use ledger::store::Claim;
use serde::{Deserialize, Serialize};

use crate::values::{NewProfile, Registration};

/// The number of days between two username changes by the user, and for which the old name is held.
pub const USERNAME_DAYS: i64 = 30;

/// The state that the rules need: the fold of the user's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// The user's document, shared with the answers to commands.
    pub document: Arc<Document>,
    /// The time of the last username change. Registration does not count.
    pub username_changed_at: Option<Time>,
    /// The newest event; the next event names it.
    pub last: Previous,
}

/// A requested change of a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Register the user.
    Register(Box<Registration>),
    /// Replace all replaceable members.
    ReplaceProfile(Box<NewProfile>),
    /// Set a new photo, whose bytes are already stored.
    ChangePhoto(Box<NewPhoto>),
    /// Take another username.
    ChangeUsername(Username),
}

impl Action {
    /// The username that the action takes. Its claim is needed for the decision.
    pub fn wanted_username(&self) -> Option<&Username> {
        match self {
            Self::Register(registration) => Some(&registration.username),
            Self::ChangeUsername(username) => Some(username),
            Self::ReplaceProfile(_) | Self::ChangePhoto(_) => None,
        }
    }
}

/// A new photo, as processed and stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPhoto {
    /// A new identifier for each change.
    pub photo_id: PhotoId,
    /// SHA-256 of the upload, in hexadecimal digits.
    pub content_hash: String,
    /// The size of the upload in bytes.
    pub size: u64,
    /// The media type of the upload.
    pub media_type: String,
    /// The width of the upload in pixels.
    pub width: u32,
    /// The height of the upload in pixels.
    pub height: u32,
    /// The file name of the main rendition.
    pub main: String,
    /// The small renditions.
    pub variants: Vec<Variant>,
}

/// The reason why an action was refused. It is stored with the idempotency key, so the shape must
/// stay readable.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Rejection {
    /// The user does not exist.
    #[error("the user does not exist")]
    NoSuchUser,
    /// A user with this id is already registered.
    #[error("the user is already registered")]
    UserExists {
        /// The user.
        user_id: UserId,
    },
    /// Another user has the name.
    #[error("the username is taken")]
    UsernameTaken {
        /// The name.
        username: String,
    },
    /// The name is held for its former owner.
    #[error("the username is held")]
    UsernameHeld {
        /// The name.
        username: String,
        /// The end of the hold.
        until: Time,
    },
    /// The last change was less than [`USERNAME_DAYS`] ago.
    #[error("the username was changed too recently")]
    UsernameChangeTooSoon {
        /// The time from which a change is allowed.
        next: Time,
    },
    /// The client decided on another version of the user.
    #[error("the user has another version")]
    VersionMismatch {
        /// The version that the client sent.
        expected: Version,
        /// The current version.
        actual: Version,
    },
}

/// Decides an action at a time. Returns the events to append (none when nothing would change), or
/// the reason for the refusal. `claim` is the claim to the wanted username, if anybody ever had it.
/// `expected` is the version on which the client decided.
pub fn decide(
    user_id: UserId,
    user: Option<&User>,
    claim: Option<&Claim>,
    action: &Action,
    expected: Option<Version>,
    now: Time,
) -> Result<Vec<UserEvent>, Rejection> {
    if let (Action::Register(registration), None) = (action, user) {
        // A user that does not exist yet has version 0.
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

/// Applies one more event to a user.
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
