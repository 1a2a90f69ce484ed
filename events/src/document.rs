//! What a user is after its events: the document, and the pure fold that makes it.
//!
//! The command API answers with it, the projector keeps it, and any subscriber may fold with it.

use serde::{Deserialize, Serialize};

use crate::envelope::Recorded;
use crate::event::{Consents, PhotoChanged, Profile, UserEvent, UserRegistered, Variant};
use crate::{PhotoId, Position, Time, UserId, Version};

/// A user after some of its events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Document {
    /// Who it is.
    pub user_id: UserId,
    /// How many events made it.
    pub version: Version,
    /// Where the last of them is in the ledger.
    pub position: Position,
    /// The canonical username.
    pub username: String,
    /// The members that the user may replace.
    pub profile: Profile,
    /// Digits of the country code.
    pub country_code: Option<String>,
    /// Digits of the national number.
    pub phone_number: Option<String>,
    /// What the user agreed to.
    pub consents: Consents,
    /// Whether the sign-up was finished.
    pub is_registration_complete: bool,
    /// What the user may do.
    pub roles: Vec<String>,
    /// The photo, if there is one.
    pub photo: Option<Photo>,
    /// When the user last signed in, as known at registration.
    pub last_login: Option<Time>,
    /// When the user was registered.
    pub created_at: Time,
    /// When its last event was recorded.
    pub updated_at: Time,
}

/// The photo of a user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Photo {
    /// New for each change.
    pub id: PhotoId,
    /// SHA-256 of the upload, in hexadecimal digits.
    pub content_hash: String,
    /// File name of the main rendition.
    pub main: String,
    /// The small renditions.
    pub variants: Vec<Variant>,
    /// When it was set.
    pub created_at: Time,
    /// When it last changed.
    pub updated_at: Time,
}

/// An event that cannot follow the ones before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FoldError {
    /// The event is not the user's next.
    #[error("expected version {expected} of the user, found {found}")]
    Version {
        /// The next version.
        expected: Version,
        /// The event's.
        found: Version,
    },
    /// The event is of another user.
    #[error("the event is of another user")]
    OtherUser,
    /// The first event of a user must be its registration.
    #[error("the user is not registered")]
    NotRegistered,
    /// A user is registered once.
    #[error("the user is registered already")]
    AlreadyRegistered,
}

/// The document after one more event. Pure.
pub fn fold<C>(document: Option<Document>, recorded: &Recorded<C>) -> Result<Document, FoldError> {
    let mut document = document;
    fold_into(&mut document, recorded)?;
    document.ok_or(FoldError::NotRegistered)
}

/// The same in place. After an error the document is as it was.
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
