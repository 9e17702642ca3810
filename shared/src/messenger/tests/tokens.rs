//! Link tokens: what proves a user and what does not. The tokens are put together by hand here, so that they
//! do not share a fault with the code under test.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Value, json};
use sha2::{Sha256, Sha384};

use super::super::link::{LinkError, LinkKeys, MintError, mint};
use super::{LINK_KEY, at, link_keys};

const EXPIRY: i64 = 1_763_636_400;

fn now() -> Timestamp {
    at("2025-11-20T10:00:00Z")
}

fn part(json: &Value) -> String {
    URL_SAFE_NO_PAD.encode(json.to_string())
}

fn hs256(key: &str, message: &str) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
}

fn signed(key: &str, header: &Value, claims: &Value) -> String {
    let message = format!("{}.{}", part(header), part(claims));
    let signature = hs256(key, &message);
    format!("{message}.{signature}")
}

fn claims() -> Value {
    json!({ "sub": "user-42", "aud": "messenger-link", "exp": EXPIRY })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn verdict_of(claims: &Value) -> Result<String, LinkError> {
    link_keys().verify(&signed(LINK_KEY, &json!({ "alg": "HS256" }), claims), now())
}

#[test]
fn a_token_of_any_jwt_library_proves_its_user() {
    let user = Ok("user-42".to_owned());
    assert_eq!(verdict_of(&claims()), user);
    assert_eq!(verdict_of(&with("aud", json!(["shop", "messenger-link"]))), user);
    assert_eq!(verdict_of(&with("exp", json!(1_763_636_400.75))), user);
    assert_eq!(verdict_of(&with("exp", json!(u64::MAX))), user);
    assert_eq!(verdict_of(&with("nbf", json!(EXPIRY - 7200))), user);
    assert_eq!(verdict_of(&with("iat", json!("whenever"))), user);
    for header in [
        json!({ "alg": "HS256", "typ": "JWT" }),
        json!({ "typ": "JWT", "kid": "2025", "alg": "HS256" }),
    ] {
        assert_eq!(
            link_keys().verify(&signed(LINK_KEY, &header, &claims()), now()),
            user
        );
    }
}

// Made with Python's hmac and base64 from the same key and claims.
#[test]
fn a_token_made_elsewhere_is_accepted() {
    let body = include_str!("../../../../events/payloads/messenger/postback_link_token.json");
    let body: Value = serde_json::from_str(body).unwrap();
    let token = body["entry"][0]["messaging"][0]["postback"]["referral"]["ref"]
        .as_str()
        .unwrap();
    assert_eq!(link_keys().verify(token, now()), Ok("user-42".to_owned()));
}

#[test]
fn other_algorithms_prove_nothing() {
    let message = |header: &Value| format!("{}.{}", part(header), part(&claims()));
    let none = message(&json!({ "alg": "none" }));
    for token in [
        format!("{none}."),
        format!("{none}.{}", hs256(LINK_KEY, &none)),
        signed(LINK_KEY, &json!({ "alg": "None" }), &claims()),
        signed(LINK_KEY, &json!({ "alg": "RS256" }), &claims()),
        signed(LINK_KEY, &json!({ "alg": "HS384" }), &claims()),
        signed(LINK_KEY, &json!({ "alg": "hs256" }), &claims()),
        signed(LINK_KEY, &json!({ "alg": null }), &claims()),
    ] {
        assert_eq!(
            link_keys().verify(&token, now()),
            Err(LinkError::WrongAlgorithm),
            "{token}"
        );
    }
    // An honest HS384 of the right key is not HS256 either.
    let message = message(&json!({ "alg": "HS384" }));
    let mut mac = Hmac::<Sha384>::new_from_slice(LINK_KEY.as_bytes()).unwrap();
    mac.update(message.as_bytes());
    let token = format!(
        "{message}.{}",
        URL_SAFE_NO_PAD.encode(mac.finalize().into_bytes())
    );
    assert_eq!(link_keys().verify(&token, now()), Err(LinkError::WrongAlgorithm));
}

#[test]
fn the_audience_must_be_ours() {
    for audience in [
        json!(null),
        json!("shop"),
        json!(["shop"]),
        json!([]),
        json!(7),
        json!("Messenger-Link"),
        json!({ "messenger-link": 1 }),
    ] {
        assert_eq!(verdict_of(&with("aud", audience)), Err(LinkError::WrongAudience));
    }
    let mut without = claims();
    without.as_object_mut().unwrap().remove("aud");
    assert_eq!(verdict_of(&without), Err(LinkError::WrongAudience));
}

#[test]
fn the_expiry_is_required_and_held_against_the_events_time() {
    let mut without = claims();
    without.as_object_mut().unwrap().remove("exp");
    assert_eq!(verdict_of(&without), Err(LinkError::Malformed));
    for expiry in [
        json!(null),
        json!("1763636400"),
        json!(true),
        json!(-1),
        json!([EXPIRY]),
    ] {
        assert_eq!(verdict_of(&with("exp", expiry)), Err(LinkError::Malformed));
    }
    let token = signed(LINK_KEY, &json!({ "alg": "HS256" }), &claims());
    let verdict = |second: i64, millisecond: i64| {
        let at = Timestamp::from_millisecond(second * 1000 + millisecond).unwrap();
        link_keys().verify(&token, at).map(drop)
    };
    assert_eq!(verdict(EXPIRY, 0), Ok(()));
    assert_eq!(verdict(EXPIRY + 60, 0), Ok(()));
    assert_eq!(verdict(EXPIRY + 60, 1), Err(LinkError::Expired));
    assert_eq!(
        link_keys().verify(&token, Timestamp::MAX).map(drop),
        Err(LinkError::Expired)
    );
    assert_eq!(link_keys().verify(&token, Timestamp::MIN).map(drop), Ok(()));
    let token = signed(
        LINK_KEY,
        &json!({ "alg": "HS256" }),
        &with("nbf", json!(EXPIRY - 100)),
    );
    let at = |second: i64| Timestamp::from_second(second).unwrap();
    assert_eq!(link_keys().verify(&token, at(EXPIRY - 160)).map(drop), Ok(()));
    assert_eq!(
        link_keys().verify(&token, at(EXPIRY - 161)),
        Err(LinkError::NotYetValid)
    );
}

#[test]
fn the_subject_is_an_id_that_braze_takes() {
    assert_eq!(
        verdict_of(&with("sub", json!("x".repeat(987)))),
        Ok("x".repeat(987))
    );
    for subject in [
        json!(""),
        json!("  "),
        json!("x".repeat(988)),
        json!("é".repeat(494)),
        json!(42),
        json!(null),
    ] {
        assert_eq!(verdict_of(&with("sub", subject)), Err(LinkError::Malformed));
    }
}

#[test]
fn keys_are_current_and_previous_and_never_empty() {
    let header = json!({ "alg": "HS256" });
    let (old, new, foreign) = ("the old key", "the new key", "somebody else's");
    let rolled = LinkKeys::new(&SecretString::from(new), Some(&SecretString::from(old)));
    for key in [old, new] {
        assert_eq!(
            rolled.verify(&signed(key, &header, &claims()), now()),
            Ok("user-42".to_owned())
        );
    }
    assert_eq!(
        rolled.verify(&signed(foreign, &header, &claims()), now()),
        Err(LinkError::BadSignature)
    );
    // What an old key signed can be wrong in other ways, and is told so.
    assert_eq!(
        rolled.verify(&signed(old, &header, &with("exp", json!(1))), now()),
        Err(LinkError::Expired)
    );
    let empty = LinkKeys::new(&SecretString::from(""), Some(&SecretString::from("")));
    assert_eq!(
        empty.verify(&signed("", &header, &claims()), now()),
        Err(LinkError::BadSignature)
    );
}

#[test]
fn a_token_that_was_touched_proves_nothing() {
    let token = signed(LINK_KEY, &json!({ "alg": "HS256" }), &claims());
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[1] = part(&with("sub", json!("user-43")));
    assert_eq!(
        link_keys().verify(&parts.join("."), now()),
        Err(LinkError::BadSignature)
    );
    assert!(link_keys().verify(&token[..token.len() - 1], now()).is_err());
}

#[test]
fn an_ordinary_ref_is_not_a_token() {
    let long = format!(
        "{}.e30.x",
        part(&json!({ "alg": "HS256", "pad": "x".repeat(5000) }))
    );
    for reference in [
        "",
        "summer_sale",
        "a.b.c",
        "shop.example.com",
        "..",
        "e30.e30.e30",
        "1.2.3.4",
        "{}",
        "ünï.cö.dé",
        &long,
    ] {
        assert_eq!(
            link_keys().verify(reference, now()),
            Err(LinkError::NotAToken),
            "{reference}"
        );
    }
    // It has our header and nothing behind it.
    let hollow = format!("{}..", part(&json!({ "alg": "HS256" })));
    assert!(matches!(
        link_keys().verify(&hollow, now()),
        Err(LinkError::BadSignature | LinkError::Malformed)
    ));
}

#[test]
fn a_minted_token_fits_a_ref_and_comes_back() {
    let key = SecretString::from(LINK_KEY);
    let hour = SignedDuration::from_hours(1);
    let uuid = "9b2f6a52-6c2e-4e0b-9d0e-5b0f2f5b7a10";
    let token = mint(&key, uuid, hour, now()).unwrap();
    assert!(token.len() < 250, "{}", token.len());
    assert_eq!(link_keys().verify(&token, now()), Ok(uuid.to_owned()));
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    assert_eq!(header, br#"{"alg":"HS256"}"#);
    let again = mint(&key, uuid, hour, now()).unwrap();
    assert_ne!(again, token, "one token cannot link two contacts");
    let odd = mint(&key, "42", SignedDuration::from_millis(1), now()).unwrap();
    assert_eq!(link_keys().verify(&odd, now()), Ok("42".to_owned()));
    assert_eq!(mint(&key, "", hour, now()), Err(MintError::UserId));
    assert_eq!(mint(&key, &"x".repeat(988), hour, now()), Err(MintError::UserId));
    assert_eq!(
        mint(&key, "42", SignedDuration::ZERO, now()),
        Err(MintError::TimeToLive)
    );
    assert_eq!(
        mint(&key, "42", SignedDuration::MAX, now()),
        Err(MintError::TimeToLive)
    );
    assert_eq!(
        mint(&SecretString::from(""), "42", hour, now()),
        Err(MintError::EmptyKey)
    );
}

proptest::proptest! {
    #[test]
    fn no_text_panics_and_none_links(text in "\\PC{0,80}", header in "[A-Za-z0-9_-]{0,20}", rest in "[A-Za-z0-9_.-]{0,60}") {
        proptest::prop_assert!(link_keys().verify(&text, now()).is_err());
        let token = format!("eyJhbGciOiJIUzI1NiJ9{header}.{rest}");
        proptest::prop_assert!(link_keys().verify(&token, now()).is_err());
    }
}
