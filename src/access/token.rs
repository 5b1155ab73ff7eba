//! Verifies JSON Web Tokens (RFC 7519) with keys that the operator has configured, and reads what
//! they grant.
//!
//! Each key has one algorithm, and a token that names another algorithm is refused. So `none` is
//! refused, and so is a token that an attacker signed with a public key as the secret. The library
//! checks signatures (in constant time); `exp` and `nbf` are checked here, because the caller
//! passes `now`. An expired token is distinguished from an invalid one, because its client should
//! come back with a new token.

use crate::access::revocation::Revoked;
use crate::access::scope::Scope;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::jwk::{
    AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, KeyOperations, PublicKeyUse,
};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::Deserialize;
use serde_json::{Value, json};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// The largest tolerated difference between the clocks of the issuer and the origin, in seconds.
const LEEWAY_S: u64 = 30;
/// The longest token that is accepted, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// The shortest secret for HS256, in bytes (RFC 7518, section 3.2).
pub const SECRET_BYTES_MIN: usize = 32;

/// A key that verifies the signatures of tokens. Its `Debug` output does not reveal the key.
pub struct Key {
    algorithm: Algorithm,
    id: Option<String>,
    decoding: DecodingKey,
}

/// The claims that a token must have, besides a valid signature.
#[derive(Clone, Debug, Default)]
pub struct Requirements {
    /// The required `iss` claim; `None`: any.
    pub issuer: Option<String>,
    /// The required `aud` claim; `None`: any.
    pub audience: Option<String>,
    /// The tokens that are not accepted any more.
    pub revoked: Arc<Revoked>,
}

/// The content of a valid token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// The rights of its bearer.
    pub scope: Scope,
    /// The `sub` claim, which identifies the bearer.
    pub subject: Option<String>,
    /// The instant until which the token is valid, with the clock tolerance, in ms since the Unix
    /// epoch.
    pub until: u64,
}

/// The reason for which a token is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenError {
    /// The text is not a token, or its signature is wrong.
    Bad,
    /// The signature is right, but a claim is missing or wrong. The text names the claim.
    Claim(&'static str),
    /// No known key has the key id and the algorithm of the token.
    UnknownKey,
    /// The token was valid but has expired.
    Expired,
    /// The token is not valid yet.
    TooEarly,
}

/// The reason for which a key cannot be used. The text reveals nothing of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyError(pub String);

/// The claims as JSON values, so that a claim of a wrong type can be distinguished from a wrong
/// signature.
#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    exp: Value,
    #[serde(default)]
    nbf: Value,
    #[serde(default)]
    iss: Value,
    #[serde(default)]
    aud: Value,
    #[serde(default)]
    sub: Value,
    #[serde(default)]
    jti: Value,
    #[serde(default)]
    iat: Value,
    #[serde(default)]
    scope: Value,
}

type ReadPem = fn(&[u8]) -> jsonwebtoken::errors::Result<DecodingKey>;

impl Key {
    /// Creates a key from a secret for HS256.
    ///
    /// # Errors
    /// Fails when the secret is shorter than [`SECRET_BYTES_MIN`], or is a key in PEM.
    pub fn secret(secret: &[u8]) -> Result<Self, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            let why = format!("a secret for HS256 has at least {SECRET_BYTES_MIN} bytes");
            return Err(KeyError(why));
        }
        // A public key is not secret, and is easily passed to the wrong flag.
        if secret.trim_ascii_start().starts_with(b"-----BEGIN") {
            let why = "this is a key in PEM and no secret; a public one goes to --token-key";
            return Err(KeyError(why.to_owned()));
        }
        let decoding = DecodingKey::from_secret(secret);
        Ok(Self { algorithm: Algorithm::HS256, id: None, decoding })
    }

    /// Creates a key from a public key in PEM. The kind of the key decides between RS256, ES256 and
    /// EdDSA.
    ///
    /// # Errors
    /// Fails when the text is not a public key of one of these kinds.
    pub fn public_pem(pem: &[u8]) -> Result<Self, KeyError> {
        let kinds: [(Algorithm, ReadPem); 3] = [
            (Algorithm::RS256, DecodingKey::from_rsa_pem),
            (Algorithm::ES256, DecodingKey::from_ec_pem),
            (Algorithm::EdDSA, DecodingKey::from_ed_pem),
        ];
        let key = kinds.into_iter().find_map(|(algorithm, read)| {
            read(pem).ok().map(|decoding| Self { algorithm, id: None, decoding })
        });
        let why = "not a public key in PEM for RS256, ES256 (P-256) or EdDSA (Ed25519)";
        key.ok_or_else(|| KeyError(why.to_owned()))
    }

    /// Reads the keys of a JWKS document (RFC 7517) that are for a supported algorithm.
    ///
    /// # Errors
    /// Fails when the text is not a JWKS document, or has no usable key.
    pub fn set(text: &str) -> Result<Vec<Self>, KeyError> {
        let set: JwkSet = serde_json::from_str(text)
            .map_err(|error| KeyError(format!("not a JWKS document: {error}")))?;
        let keys: Vec<Self> = set.keys.iter().filter_map(Self::of_jwk).collect();
        match keys.is_empty() {
            true => Err(KeyError("no key for RS256, ES256 or EdDSA in the JWKS".to_owned())),
            false => Ok(keys),
        }
    }

    /// Reads a key of a JWKS document. Secrets are ignored, because a fetched document must not
    /// contain secrets.
    fn of_jwk(jwk: &Jwk) -> Option<Self> {
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            AlgorithmParameters::EllipticCurve(curve) if curve.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            _ => return None,
        };
        // A key may say for which purpose it is meant (RFC 7517, sections 4.2 to 4.4).
        let common = &jwk.common;
        let is_for_signatures =
            common.public_key_use.as_ref().is_none_or(|of| *of == PublicKeyUse::Signature);
        let operations = common.key_operations.as_ref();
        let verifies = operations.is_none_or(|all| all.contains(&KeyOperations::Verify));
        let is_for_it = common.key_algorithm.is_none_or(|of| of == named);
        if !is_for_signatures || !verifies || !is_for_it {
            return None;
        }
        let decoding = DecodingKey::from_jwk(jwk).ok()?;
        Some(Self { algorithm, id: jwk.common.key_id.clone(), decoding })
    }
}

/// Verifies a token at the time `now`, in ms since the Unix epoch.
///
/// # Errors
/// Fails when the token is invalid, expired, not valid yet, or signed by an unknown key.
pub fn verify(
    token: &str,
    keys: &[Key],
    requirements: &Requirements,
    now: u64,
) -> Result<Grant, TokenError> {
    if token.len() > TOKEN_BYTES_MAX {
        return Err(TokenError::Bad);
    }
    let header = jsonwebtoken::decode_header(token).map_err(|_| TokenError::Bad)?;
    // A critical extension must be understood (RFC 7515, section 4.1.11), and none is supported.
    if header.crit.is_some() {
        return Err(TokenError::Bad);
    }
    let is_meant = |key: &&Key| {
        let is_same = key.id.is_none() || header.kid.is_none() || key.id == header.kid;
        key.algorithm == header.alg && is_same
    };
    let mut meant = keys.iter().filter(is_meant).peekable();
    if meant.peek().is_none() {
        return Err(TokenError::UnknownKey);
    }
    let claims = meant.find_map(|key| signed_claims(token, key)).ok_or(TokenError::Bad)??;
    check(claims, requirements, now / 1_000)
}

/// Returns the claims of a token that was signed by this key; `None` if it was not.
fn signed_claims(token: &str, key: &Key) -> Option<Result<Claims, TokenError>> {
    let mut validation = Validation::new(key.algorithm);
    // The function `check` checks these claims, with the time of its caller.
    validation.validate_exp = false;
    validation.validate_nbf = false;
    validation.validate_aud = false;
    validation.required_spec_claims.clear();
    let data = jsonwebtoken::decode::<Claims>(token, &key.decoding, &validation);
    match data {
        Ok(data) => Some(Ok(data.claims)),
        // The library parses the claims only after the signature was found to be right.
        Err(error) if matches!(error.kind(), ErrorKind::Json(_)) => {
            Some(Err(TokenError::Claim("its claims are not as RFC 7519 has them")))
        }
        Err(_) => None,
    }
}

fn check(claims: Claims, requirements: &Requirements, now_s: u64) -> Result<Grant, TokenError> {
    if requirements.issuer.is_some() && claims.iss.as_str() != requirements.issuer.as_deref() {
        return Err(TokenError::Claim("its \"iss\" is not the issuer that this origin demands"));
    }
    if let Some(audience) = &requirements.audience {
        let is_named = match &claims.aud {
            Value::String(one) => one == audience,
            Value::Array(several) => several.iter().any(|one| one == audience),
            _ => false,
        };
        if !is_named {
            return Err(TokenError::Claim("its \"aud\" does not name this origin's audience"));
        }
    }
    let expires = claims.exp.as_f64().filter(|exp| exp.is_finite());
    let expires = expires.ok_or(TokenError::Claim("its \"exp\" is missing or is no number"))?;
    let from = match &claims.nbf {
        Value::Null => None,
        value => Some(value.as_f64().ok_or(TokenError::Claim("its \"nbf\" is no number"))?),
    };
    let subject = match claims.sub {
        Value::Null => None,
        Value::String(subject) => Some(subject),
        _ => return Err(TokenError::Claim("its \"sub\" is no string")),
    };
    if requirements.revoked.has(&claims.jti, subject.as_deref(), &claims.iat) {
        return Err(TokenError::Claim("it was revoked (--token-revoked)"));
    }
    let scope = scope(&claims.scope)?;
    if expires + LEEWAY_S as f64 <= now_s as f64 {
        return Err(TokenError::Expired);
    }
    if from.is_some_and(|from| from > (now_s + LEEWAY_S) as f64) {
        return Err(TokenError::TooEarly);
    }
    let until = ((expires + LEEWAY_S as f64) * 1_000.0) as u64;
    Ok(Grant { scope, subject, until })
}

/// Reads the `scope` claim. RFC 8693 defines a string of words with spaces between them; several
/// issuers send an array of words instead.
fn scope(claim: &Value) -> Result<Scope, TokenError> {
    const WRONG: TokenError =
        TokenError::Claim("its \"scope\" is neither a string nor an array of strings");
    match claim {
        Value::Null => Ok(Scope::default()),
        Value::String(words) => Ok(Scope::parse(words)),
        Value::Array(words) => {
            let words: Option<Vec<&str>> = words.iter().map(Value::as_str).collect();
            Ok(Scope::parse(&words.ok_or(WRONG)?.join(" ")))
        }
        _ => Err(WRONG),
    }
}

/// Creates a token for development, signed with HS256. `id` is its `jti`, and `valid_s` is the time
/// from its creation to its expiry, in seconds since the Unix epoch.
///
/// # Errors
/// Fails when the secret is too short, or is a key in PEM.
pub fn mint(
    secret: &[u8],
    scope: &Scope,
    subject: Option<&str>,
    requirements: &Requirements,
    id: &str,
    valid_s: Range<u64>,
) -> Result<String, KeyError> {
    Key::secret(secret)?;
    let (issued, expires) = (valid_s.start, valid_s.end);
    let scope = scope.to_string();
    let mut claims = json!({ "scope": scope, "jti": id, "iat": issued, "exp": expires });
    let said = [
        ("sub", subject),
        ("iss", requirements.issuer.as_deref()),
        ("aud", requirements.audience.as_deref()),
    ];
    for (name, value) in said {
        if let Some(value) = value {
            claims[name] = value.into();
        }
    }
    let key = EncodingKey::from_secret(secret);
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key)
        .map_err(|error| KeyError(error.to_string()))
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?}, {:?})", self.algorithm, self.id)
    }
}

impl fmt::Display for KeyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for KeyError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::scope::Right;
    use crate::core::event::ChannelName;

    const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";
    const NOW_S: u64 = 1_795_000_000;

    fn token(claims: Value) -> String {
        let key = EncodingKey::from_secret(SECRET);
        jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &key).unwrap()
    }

    fn read(token: &str) -> Result<Grant, TokenError> {
        read_with(token, &Requirements::default())
    }

    fn read_with(token: &str, requirements: &Requirements) -> Result<Grant, TokenError> {
        verify(token, &[Key::secret(SECRET).unwrap()], requirements, NOW_S * 1_000)
    }

    #[test]
    fn a_minted_token_grants_what_it_says() {
        let scope = Scope::parse("publish:prices.* subscribe:a");
        let requirements = Requirements {
            issuer: Some("me".into()),
            audience: Some("headwater".into()),
            ..Requirements::default()
        };
        let token =
            mint(SECRET, &scope, Some("desk"), &requirements, "one", NOW_S..NOW_S + 60).unwrap();
        let grant = read_with(&token, &requirements).unwrap();
        assert_eq!(
            grant,
            Grant { scope, subject: Some("desk".to_owned()), until: (NOW_S + 90) * 1_000 }
        );
        let name = ChannelName::parse("prices.eur").unwrap();
        assert!(grant.scope.grants(Right::Publish, &name));
        let other = Requirements { audience: Some("other".into()), ..requirements.clone() };
        assert!(matches!(read_with(&token, &other), Err(TokenError::Claim(_))));
        let other = Requirements { issuer: Some("you".into()), ..requirements };
        assert!(matches!(read_with(&token, &other), Err(TokenError::Claim(_))));
    }

    #[test]
    fn a_token_is_good_for_its_time_and_half_a_minute() {
        let at =
            |exp: Value, nbf: Value| read(&token(json!({ "exp": exp, "nbf": nbf, "scope": "" })));
        assert!(at(json!(NOW_S), Value::Null).is_ok());
        assert!(at(json!(NOW_S - 29), Value::Null).is_ok());
        assert_eq!(at(json!(NOW_S - 30), Value::Null), Err(TokenError::Expired));
        assert!(at(json!(NOW_S + 99), json!(NOW_S + 30)).is_ok());
        assert_eq!(at(json!(NOW_S + 99), json!(NOW_S + 31)), Err(TokenError::TooEarly));
        assert_eq!(at(json!(1e300), json!(1e300)), Err(TokenError::TooEarly));
        // A token without a valid `exp` is refused.
        for exp in [Value::Null, json!("1999999999"), json!({}), json!([NOW_S + 60])] {
            let refused = at(exp.clone(), Value::Null);
            assert!(matches!(refused, Err(TokenError::Claim(_))), "{exp}");
        }
    }

    #[test]
    fn a_claim_of_a_wrong_type_is_named_and_a_list_of_scopes_is_taken() {
        let with = |name: &str, value: Value| {
            let mut claims = json!({ "exp": NOW_S + 60, "scope": "" });
            claims[name] = value;
            read(&token(claims))
        };
        for (name, value) in [
            ("sub", json!(42)),
            ("nbf", json!("soon")),
            ("scope", json!(7)),
            ("scope", json!(["subscribe:a", 7])),
        ] {
            let Err(TokenError::Claim(why)) = with(name, value.clone()) else {
                panic!("{name}: {value}")
            };
            assert!(why.contains(&format!("\"{name}\"")), "{why}");
        }
        let grant = with("scope", json!(["subscribe:a", "publish:b.*"])).unwrap();
        assert_eq!(grant.scope, Scope::parse("subscribe:a publish:b.*"));
        let grant = with("scope", json!([])).unwrap();
        assert_eq!(grant.scope, Scope::default());
    }

    #[test]
    fn what_is_not_signed_by_a_key_of_ours_is_refused() {
        let good = token(json!({ "exp": NOW_S + 60, "scope": "publish:*" }));
        assert!(read(&good).is_ok());
        let parts: Vec<&str> = good.split('.').collect();
        let none = "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0";
        for forged in [
            String::new(),
            "a.b.c".to_owned(),
            format!("{}.{}.", parts[0], parts[1]),
            format!("{}.{}", parts[0], parts[1]),
            format!("{none}.{}.", parts[1]),
            format!("{none}.{}.{}", parts[1], parts[2]),
            format!("{}.{}.{}", parts[0], parts[1], &parts[2][1..]),
            format!("{}.{}A.{}", parts[0], parts[1], parts[2]),
            format!("{good}.{}", parts[2]),
            format!("{good}="),
            "x".repeat(TOKEN_BYTES_MAX + 1),
        ] {
            assert!(read(&forged).is_err(), "{forged}");
        }
        let other = Key::secret(b"fedcba9876543210fedcba9876543210").unwrap();
        let refused = verify(&good, &[other], &Requirements::default(), NOW_S * 1_000);
        assert_eq!(refused, Err(TokenError::Bad));
        let mut header = Header::new(Algorithm::HS256);
        header.crit = Some(vec!["b64".to_owned()]);
        let claims = json!({ "exp": NOW_S + 60 });
        let crit = jsonwebtoken::encode(&header, &claims, &EncodingKey::from_secret(SECRET));
        assert_eq!(read(&crit.unwrap()), Err(TokenError::Bad));
    }

    #[test]
    fn a_key_shows_nothing_of_itself_and_a_short_secret_is_none() {
        assert!(Key::secret(b"-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA\n").is_err());
        assert_eq!(format!("{:?}", Key::secret(SECRET).unwrap()), "Key(HS256, None)");
        assert!(Key::secret(b"short").is_err());
        assert!(Key::public_pem(b"-----BEGIN nothing-----").is_err());
        assert!(Key::set("{}").is_err() && Key::set(r#"{"keys":[]}"#).is_err());
        // A secret in a public document is not accepted as a key.
        assert!(Key::set(r#"{"keys":[{"kty":"oct","k":"MDEyMzQ1Njc4OWFiY2RlZg"}]}"#).is_err());
    }
}
