//! Who calls: bearer tokens (RFC 6750) that are signed JWTs (RFC 7519).

use std::collections::BTreeSet;
use std::sync::Arc;

use axum::extract::{FromRef, FromRequestParts};
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jiff::Timestamp;
use jsonwebtoken::{Algorithm, EncodingKey, Header, Validation};
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::code::Code;
use crate::error::ApiError;
use crate::keys::{Key, Keys};

/// Bytes of a token at the most.
const MAX_TOKEN: usize = 8 * 1024;
/// Characters of a subject at the most.
const MAX_SUBJECT: usize = 128;
/// Seconds by which the issuer's clock may differ from ours.
const LEEWAY: f64 = 30.0;
/// Bytes of tokens whose signatures are remembered, with what they say, and how many these are about.
const REMEMBERED_BYTES: u64 = 8 * 1024 * 1024;
const REMEMBERED: usize = 16_384;
/// What a remembered token takes beside its own bytes, about.
const REMEMBERED_BESIDE: u64 = 256;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Changes and reads its own profile.
    User,
    /// Registers users.
    Service,
    /// Reads history.
    Auditor,
    /// Does what services and auditors do.
    Admin,
}

impl Role {
    /// The role of a name in a token; `None` for names that mean nothing here.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::User, Self::Service, Self::Auditor, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == name)
    }

    /// Its name in tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

/// The owner of a good token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `sub`: the id of a user, or the name of a service; 1 to 128 characters.
    pub subject: String,
    /// `roles`; `user` when the token has none.
    pub roles: BTreeSet<Role>,
}

impl Caller {
    /// Whether the caller has a role.
    pub fn has(&self, role: Role) -> bool {
        self.roles.contains(&role)
    }

    /// 403 unless the caller has one of the roles.
    pub fn require(&self, any_of: &[Role]) -> Result<(), ApiError> {
        if any_of.iter().any(|role| self.has(*role)) {
            Ok(())
        } else {
            Err(ApiError::new(Code::InsufficientPermissions))
        }
    }
}

/// Tells good tokens from bad ones.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    clock: Clock,
    /// Good tokens by their exact text. Only what is always so of a token is remembered: whether its key is still one
    /// of ours and its time has come and not passed is looked at each time.
    remembered: Cache<String, Arc<Signed>, Remembered>,
}

/// A token with a good signature, issuer, audience and subject.
#[derive(Debug)]
struct Signed {
    key_id: Option<String>,
    key: Arc<Key>,
    expires: f64,
    not_before: Option<f64>,
    caller: Caller,
}

impl Signed {
    fn is_in_time(&self, now: Timestamp) -> bool {
        let seconds = now.as_duration().as_secs_f64();
        let has_come = |from| seconds + LEEWAY >= from;
        seconds < self.expires + LEEWAY && self.not_before.is_none_or(has_come)
    }
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    roles: Option<Vec<String>>,
}

/// What a remembered token takes.
#[derive(Debug, Clone)]
struct Remembered;

impl Weighter<String, Arc<Signed>> for Remembered {
    fn weight(&self, token: &String, _: &Arc<Signed>) -> u64 {
        token.len() as u64 + REMEMBERED_BESIDE
    }
}

impl Verifier {
    /// Tokens of these keys, of this issuer and for this audience where they are given.
    pub fn new(keys: Keys, issuer: Option<String>, audience: Option<String>, clock: Clock) -> Self {
        Self {
            keys,
            issuer,
            audience,
            clock,
            remembered: Cache::with_weighter(REMEMBERED, REMEMBERED_BYTES, Remembered),
        }
    }

    /// The owner of a token, if it is good now.
    pub async fn verify(&self, token: &str) -> Option<Caller> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let now = self.clock.now();
        if let Some(signed) = self.remembered.get(token) {
            let key = self.keys.find(signed.key_id.as_deref(), now).await;
            // A set of keys that was read again has others, even where they are the same.
            if key.is_some_and(|key| Arc::ptr_eq(&key, &signed.key)) {
                if signed.is_in_time(now) {
                    return Some(signed.caller.clone());
                }
                self.remembered.remove(token);
                return None;
            }
        }
        let signed = self.signed(token, now).await?;
        let caller = signed.is_in_time(now).then(|| signed.caller.clone())?;
        self.remembered.insert(token.to_owned(), Arc::new(signed));
        Some(caller)
    }

    /// What a token says, if it is one of ours, whatever its time.
    async fn signed(&self, token: &str, now: Timestamp) -> Option<Signed> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let key = self.keys.find(header.kid.as_deref(), now).await?;
        let mut validation = Validation::new(key.algorithm);
        // Times are checked below, against our clock.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        let mut required = vec!["exp", "sub"];
        match &self.audience {
            Some(audience) => {
                validation.set_audience(&[audience]);
                required.push("aud");
            }
            None => validation.validate_aud = false,
        }
        if let Some(issuer) = &self.issuer {
            validation.set_issuer(&[issuer]);
            required.push("iss");
        }
        validation.set_required_spec_claims(&required);
        let claims = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation)
            .ok()?
            .claims;
        // Subjects become parts of keys, and no database keeps a NUL in a text.
        let subject = &claims.sub;
        let has_subject = !subject.is_empty()
            && subject.chars().nth(MAX_SUBJECT).is_none()
            && !subject.chars().any(char::is_control);
        if !has_subject {
            return None;
        }
        let roles = match claims.roles {
            Some(names) => names.iter().filter_map(|name| Role::parse(name)).collect(),
            None => BTreeSet::from([Role::User]),
        };
        Some(Signed {
            key_id: header.kid,
            key,
            expires: claims.exp,
            not_before: claims.nbf,
            caller: Caller {
                subject: claims.sub,
                roles,
            },
        })
    }
}

async fn caller<S>(parts: &Parts, state: &S) -> Result<Option<Caller>, ApiError>
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    let unauthenticated = || ApiError::new(Code::AuthenticationRequired);
    let mut values = parts.headers.get_all(AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Ok(None),
        (Some(value), None) => value.to_str().map_err(|_| unauthenticated())?,
        (Some(_), Some(_)) => return Err(unauthenticated()),
    };
    let (scheme, token) = value.split_once(' ').ok_or_else(unauthenticated)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(unauthenticated());
    }
    let verifier = Arc::<Verifier>::from_ref(state);
    verifier
        .verify(token.trim())
        .await
        .map(Some)
        .ok_or_else(unauthenticated)
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        caller(parts, state)
            .await?
            .ok_or_else(|| ApiError::new(Code::AuthenticationRequired))
    }
}

/// The caller, if there is one: no token is fine, a bad one is not.
#[derive(Debug, Clone)]
pub struct OptionalCaller(pub Option<Caller>);

impl<S> FromRequestParts<S> for OptionalCaller
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        caller(parts, state).await.map(Self)
    }
}

/// What a token made here says.
pub struct Grant<'a> {
    /// Whose token.
    pub subject: &'a str,
    /// What it allows.
    pub roles: &'a [Role],
    /// `iss`.
    pub issuer: Option<&'a str>,
    /// `aud`.
    pub audience: Option<&'a str>,
    /// `iat`.
    pub issued: Timestamp,
    /// `exp`.
    pub expires: Timestamp,
}

/// An HS256 token, for development and tests: in production an identity provider makes them.
pub fn mint_hs256(secret: &[u8], grant: &Grant<'_>) -> String {
    #[derive(Serialize)]
    struct Minted<'a> {
        sub: &'a str,
        roles: Vec<&'static str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        iss: Option<&'a str>,
        #[serde(skip_serializing_if = "Option::is_none")]
        aud: Option<&'a str>,
        iat: i64,
        exp: i64,
    }
    let claims = Minted {
        sub: grant.subject,
        roles: grant.roles.iter().map(|role| role.as_str()).collect(),
        iss: grant.issuer,
        aud: grant.audience,
        iat: grant.issued.as_second(),
        exp: grant.expires.as_second(),
    };
    jsonwebtoken::encode(
        &Header::new(Algorithm::HS256),
        &claims,
        &EncodingKey::from_secret(secret),
    )
    .expect("strings and numbers can be signed with any secret")
}

#[cfg(test)]
mod tests;
