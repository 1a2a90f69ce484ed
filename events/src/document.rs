//! The document of a user after its events, and the pure fold that makes it.
//!
//! The command API answers with this document. The projector stores it. Any subscriber may use the
//! same fold.

use serde::{Deserialize, Serialize};

use crate::envelope::Recorded;
use crate::event::{Consents, PhotoChanged, Profile, UserEvent, UserRegistered, Variant};
use crate::{PhotoId, Position, Time, UserId, Version};

/// A user after some of its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// The user's identifier.
    pub user_id: UserId,
    /// The user's version: the number of events folded so far.
    pub version: Version,
    /// The position of the last folded event.
    pub position: Position,
    /// The canonical username.
    pub username: String,
    /// The members that the user may replace.
    pub profile: Profile,
    /// Digits of the country code.
    pub country_code: Option<String>,
    /// Digits of the national number.
    pub phone_number: Option<String>,
    /// The accepted consents.
    pub consents: Consents,
    /// Whether the sign-up was finished.
    pub is_registration_complete: bool,
    /// The user's roles.
    pub roles: Vec<String>,
    /// The photo, if the user has one.
    pub photo: Option<Photo>,
    /// The last sign-in, as known at registration.
    pub last_login: Option<Time>,
    /// The time of registration.
    pub created_at: Time,
    /// The time when the last folded event was recorded.
    pub updated_at: Time,
}

/// The photo of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Photo {
    /// A new identifier for each change.
    pub id: PhotoId,
    /// SHA-256 of the upload, in hexadecimal digits.
    pub content_hash: String,
    /// The file name of the main rendition.
    pub main: String,
    /// The small renditions.
    pub variants: Vec<Variant>,
    /// The time when the photo was set.
    pub created_at: Time,
    /// The time of the last change.
    pub updated_at: Time,
}

/// An event that cannot follow the events before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The event does not have the user's next version.
    #[error("expected version {expected} of the user, found {found}")]
    Version {
        /// The expected version.
        expected: Version,
        /// The version of the event.
        found: Version,
    },
    /// The event belongs to another user.
    #[error("the event belongs to another user")]
    OtherUser,
    /// The first event of a user must be its registration.
    #[error("the user is not registered")]
    NotRegistered,
    /// A user can be registered only once.
    #[error("the user is already registered")]
    AlreadyRegistered,
}

/// Folds one more event into a document. Pure.
pub fn fold<C>(document: Option<Document>, recorded: &Recorded<C>) -> Result<Document, FoldError> {
    let mut document = document;
    fold_into(&mut document, recorded)?;
    document.ok_or(FoldError::NotRegistered)
}

/// Folds one more event into a document, in place. After an error the document is unchanged.
pub fn fold_into<C>(
    document: &mut Option<Document>,
    recorded: &Recorded<C>,
) -> Result<(), FoldError> {
    let expected = document.as_ref().map_or(1, |document| document.version + 1);
    if recorded.version != expected {
        return Err(FoldError::Version {
            expected,
            found: recorded.version,
        });
    }
    let Some(document) = document else {
        let UserEvent::UserRegistered(registered) = &recorded.event else {
            return Err(FoldError::NotRegistered);
        };
        *document = Some(begin(recorded, registered));
        return Ok(());
    };
    if document.user_id != recorded.user_id {
        return Err(FoldError::OtherUser);
    }
    match &recorded.event {
        UserEvent::UserRegistered(_) => return Err(FoldError::AlreadyRegistered),
        UserEvent::ProfileUpdated(updated) => updated.apply_to(&mut document.profile),
        UserEvent::PhotoChanged(changed) => {
            document.photo = Some(photo(changed, recorded.recorded_at));
        }
        UserEvent::UsernameChanged(changed) => document.username.clone_from(&changed.after),
    }
    document.version = recorded.version;
    document.position = recorded.position;
    document.updated_at = recorded.recorded_at;
    Ok(())
}

fn begin<C>(recorded: &Recorded<C>, registered: &UserRegistered) -> Document {
    Document {
        user_id: recorded.user_id,
        version: recorded.version,
        position: recorded.position,
        username: registered.username.clone(),
        profile: registered.profile.clone(),
        country_code: registered.country_code.clone(),
        phone_number: registered.phone_number.clone(),
        consents: registered.consents.clone(),
        is_registration_complete: registered.is_registration_complete,
        roles: registered.roles.clone(),
        photo: None,
        last_login: registered.last_login,
        created_at: recorded.recorded_at,
        updated_at: recorded.recorded_at,
    }
}

fn photo(changed: &PhotoChanged, at: Time) -> Photo {
    Photo {
        id: changed.photo_id,
        content_hash: changed.content_hash.clone(),
        main: changed.main.clone(),
        variants: changed.variants.clone(),
        created_at: at,
        updated_at: at,
    }
}
