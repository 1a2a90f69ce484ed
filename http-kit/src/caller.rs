//! The caller of a request. Callers prove who they are with bearer tokens (RFC 6750) that are signed JWTs (RFC 7519).

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
/// The cache of verified tokens: its size in bytes, and about how many tokens fit.
const REMEMBERED_BYTES: u64 = 8 * 1024 * 1024;
const REMEMBERED: usize = 16_384;
/// Approximate bytes of a cached token beside its text.
const REMEMBERED_BESIDE: u64 = 256;

/// A permission of a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Reads and changes their own profile.
    User,
    /// Registers users.
    Service,
    /// Reads history.
    Auditor,
    /// Has the permissions of services and auditors.
    Admin,
}

impl Role {
    /// The role of a name in a token. `None` for an unknown name.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::User, Self::Service, Self::Auditor, Self::Admin]
            .into_iter()
            .find(|role| role.as_str() == name)
    }

    /// The name in tokens.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Service => "service",
            Self::Auditor => "auditor",
            Self::Admin => "admin",
        }
    }
}

/// The owner of a valid token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// `sub`: the id of a user, or the name of a service; 1 to 128 characters.
    pub subject: String,
    /// `roles`; `user` when the token does not have this claim.
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

/// Verifies tokens.
#[derive(Debug)]
pub struct Verifier {
    keys: Keys,
    issuer: Option<String>,
    audience: Option<String>,
    clock: Clock,
    /// Verified tokens by their exact text. Signature, issuer, audience and subject of a token never change. Its key
    /// and its times are checked again on each use.
    remembered: Cache<String, Arc<Signed>, Remembered>,
}

/// A token with a valid signature, issuer, audience and subject.
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

/// Weighs a cached token in bytes.
#[derive(Debug, Clone)]
struct Remembered;

impl Weighter<String, Arc<Signed>> for Remembered {
    fn weight(&self, token: &String, _: &Arc<Signed>) -> u64 {
        token.len() as u64 + REMEMBERED_BESIDE
    }
}

impl Verifier {
    /// Accepts tokens signed with these keys. The issuer and the audience are checked where they are given.
    pub fn new(keys: Keys, issuer: Option<String>, audience: Option<String>, clock: Clock) -> Self {
        Self {
            keys,
            issuer,
            audience,
            clock,
            remembered: Cache::with_weighter(REMEMBERED, REMEMBERED_BYTES, Remembered),
        }
    }

    /// The owner of a token that is valid now.
    pub async fn verify(&self, token: &str) -> Option<Caller> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let now = self.clock.now();
        if let Some(signed) = self.remembered.get(token) {
            let key = self.keys.find(signed.key_id.as_deref(), now).await;
            // After the key set is read again, equal keys are different objects, and the token is verified again.
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

    /// The verified content of a token; its times are not checked here.
    async fn signed(&self, token: &str, now: Timestamp) -> Option<Signed> {
        let header = jsonwebtoken::decode_header(token).ok()?;
        let key = self.keys.find(header.kid.as_deref(), now).await?;
        let mut validation = Validation::new(key.algorithm);
        // Times are checked against our own clock instead.
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
        // Subjects become parts of keys, and PostgreSQL refuses NUL in text.
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

/// The caller of a request whose token is optional. An invalid token is refused.
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

/// The content of a token that [`mint_hs256`] makes.
pub struct Grant<'a> {
    /// `sub`: the owner.
    pub subject: &'a str,
    /// `roles`.
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

/// Makes an HS256 token for development and tests. In production, an identity provider makes tokens.
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
