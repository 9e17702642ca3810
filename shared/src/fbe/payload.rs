//! Bodies of FBE webhooks → events.
//!
//! Three shapes arrive: Graph's envelope (`entry[].changes[]`), `{"data":[…]}` as Meta's page about FBE
//! prints it, and a bare value, as bridges forward it. Every item is read by itself: one that is broken is
//! quarantined, and its neighbours go on.

use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde_json::{Map, Value};

use super::event::{BusinessIntegrationEvent, InstallChange, InstallEvent, IntegrationChange, Stamp};
use super::secret::{self, Token, TokenType};
use super::{read, redact};
use crate::digest::Digest;
use crate::json::{self, Scalar};
use crate::outbox::{Quarantined, Reason};
use crate::personal::Personal;
use crate::webhook::Verified;

/// A stored item holds 400 KB, and an install keeps its grant up to twice, next to its history.
const MAX_GRANT_BYTES: usize = 120_000;
/// Secrets Manager takes 64 KB.
const MAX_TOKEN_BYTES: usize = 16_384;
/// A time further ahead of its receipt is wrong, and would make every later event look old.
const MAX_AHEAD: SignedDuration = SignedDuration::from_hours(1);

/// Everything that one body held.
#[derive(Debug, Default)]
pub struct Parsed {
    /// Installs, changes and removals, in the order of the body.
    pub changes: Vec<InstallEvent>,
    /// Events of the newer Business Integration webhooks.
    pub integrations: Vec<BusinessIntegrationEvent>,
    /// What could not be used.
    pub quarantined: Vec<Quarantined>,
}

/// What an item inherits from the body and the envelope around it.
#[derive(Default)]
struct Around {
    /// Stands in for a time that is missing or impossible.
    received_at: Timestamp,
    at: Option<Timestamp>,
    id: Option<String>,
    uid: Option<Personal<String>>,
}

impl Around {
    /// The time of an item that names `own` itself.
    fn time(&self, own: Option<Timestamp>) -> Timestamp {
        let at = self.at.or(own);
        at.filter(|at| at.duration_since(self.received_at) <= MAX_AHEAD)
            .unwrap_or(self.received_at)
    }
}

/// Reads a body. `received_at` stands in for a time that is missing or impossible. Never fails: what cannot
/// be used is in [`Parsed::quarantined`].
#[must_use]
pub fn parse(verified: &Verified, received_at: Timestamp) -> Parsed {
    let mut parsed = Parsed::default();
    let around = Around {
        received_at,
        ..Around::default()
    };
    match json::read::<Value>(verified.body()) {
        Ok(Value::Array(items)) => {
            for item in &items {
                parsed.document(item, &around);
            }
        }
        Ok(document) => parsed.document(&document, &around),
        Err(_) => {
            parsed.quarantined.push(whole(verified, Reason::NotJson));
        }
    }
    parsed
}

/// A body as it is kept, without its tokens.
#[must_use]
pub fn whole(verified: &Verified, reason: Reason) -> Quarantined {
    let raw = match json::read::<Value>(verified.body()) {
        Ok(document) => redact::value(&document).to_string(),
        Err(_) => redact::text(&String::from_utf8_lossy(verified.body())),
    };
    kept(reason, raw)
}

fn kept(reason: Reason, raw: String) -> Quarantined {
    Quarantined {
        source: "fbe",
        reason,
        raw: Personal(raw.into()),
    }
}

impl Parsed {
    fn quarantine(&mut self, reason: Reason, raw: &Value) {
        self.quarantined
            .push(kept(reason, redact::value(raw).to_string()));
    }

    fn document(&mut self, document: &Value, around: &Around) {
        let Some(members) = document.as_object() else {
            return self.quarantine(Reason::NotUnderstood, document);
        };
        if let Some(entries) = members.get("entry") {
            for entry in items(entries) {
                self.entry(entry, around.received_at);
            }
        } else if let Some(data) = members.get("data") {
            for value in items(data) {
                self.install("fbe_install", Some(value), value, around);
            }
        } else if members.contains_key("field") {
            self.change(document, around);
        } else if [
            "business_id",
            "fbe_external_business_id",
            "fbe_event",
            "installed_features",
        ]
        .iter()
        .any(|name| members.contains_key(*name))
        {
            self.install("fbe_install", Some(document), document, around);
        } else {
            self.quarantine(Reason::NotUnderstood, document);
        }
    }

    fn entry(&mut self, entry: &Value, received_at: Timestamp) {
        let around = Around {
            received_at,
            at: json::member(entry, "time").time(),
            id: entry.get("id").and_then(read::id),
            uid: entry
                .get("uid")
                .or_else(|| entry.get("id"))
                .and_then(read::id)
                .map(Personal),
        };
        match entry.get("changes") {
            Some(changes @ (Value::Array(_) | Value::Object(_))) => {
                for change in items(changes) {
                    self.change(change, &around);
                }
            }
            _ if entry.get("changed_fields").is_some() => self.quarantine(Reason::ValuesNotIncluded, entry),
            _ => self.quarantine(Reason::NotUnderstood, entry),
        }
    }

    fn change(&mut self, change: &Value, around: &Around) {
        let field = change.get("field").and_then(Value::as_str).unwrap_or_default();
        let value = change.get("value");
        let integration = match field {
            "fbe_install" | "fbe_uninstall" => {
                return self.install(field, value, change, around);
            }
            "business_integration_install" => IntegrationChange::Install,
            "business_integration_update" => IntegrationChange::Update,
            "business_integration_uninstall" => IntegrationChange::Uninstall,
            _ => return self.quarantine(Reason::UnknownField, change),
        };
        let id = |name: &str| value.and_then(|value| value.get(name)).and_then(read::id);
        let Some(business_manager_id) = id("business_manager_id") else {
            return self.quarantine(Reason::NoBusinessManagerId, change);
        };
        let at = around.time(None);
        self.integrations.push(BusinessIntegrationEvent {
            change: integration,
            stamp: Stamp {
                at,
                digest: Digest::of_parts([field, &business_manager_id, &at.to_string(), &change.to_string()])
                    .to_string(),
            },
            business_manager_id,
            configuration_id: id("tp_config_id"),
            app_id: around.id.clone(),
        });
    }

    /// Reads one value of `fbe_install`; `raw` is what is kept if it cannot be used.
    fn install(&mut self, field: &str, value: Option<&Value>, raw: &Value, around: &Around) {
        let value = value.map(read::unwrapped);
        let Some(Value::Object(members)) = value.as_deref() else {
            return self.quarantine(Reason::NoValue, raw);
        };
        match install(field, members, around) {
            Ok(event) => self.changes.push(event),
            Err(reason) => self.quarantine(reason, raw),
        }
    }
}

fn install(field: &str, value: &Map<String, Value>, around: &Around) -> Result<InstallEvent, Reason> {
    let business_id = ["business_id", "fbe_external_business_id", "external_business_id"]
        .iter()
        .find_map(|name| value.get(*name).and_then(business_id))
        .ok_or(Reason::NoBusinessId)?;
    if business_id.starts_with("sample_business_id") {
        return Err(Reason::Sample);
    }
    if !secret::fits(&business_id) {
        return Err(Reason::BusinessIdTooLong);
    }
    let text = |name: &str| {
        let text = value.get(name).and_then(Value::as_str).map(str::trim);
        text.filter(|text| !text.is_empty()).map(str::to_owned)
    };
    let token = text("access_token").filter(|token| token != "0");
    if token.as_ref().is_some_and(|token| token.len() > MAX_TOKEN_BYTES) {
        return Err(Reason::TooLarge);
    }
    let granted = read::granted(value);
    if serde_json::to_vec(&granted).map_or(usize::MAX, |json| json.len()) > MAX_GRANT_BYTES {
        return Err(Reason::TooLarge);
    }
    let at = around.time(Scalar::from(value.get("time")).time());
    let content = serde_json::to_string(value).unwrap_or_default();
    let event = text("fbe_event");
    let included = |name: &str| value.get(name).is_some_and(|listed| !listed.is_null());
    let removed = field == "fbe_uninstall"
        || match &event {
            Some(event) => event.eq_ignore_ascii_case("uninstall"),
            // Meta's rule where no event is named: nothing is granted and no token came.
            None => {
                token.is_none()
                    && !["profiles", "pages", "instagram_profiles"]
                        .iter()
                        .any(|name| included(name))
            }
        };
    Ok(InstallEvent {
        business_manager_id: granted.assets.business_manager_id.clone(),
        stamp: Stamp {
            at,
            digest: Digest::of_parts([field, &business_id, &at.to_string(), &content]).to_string(),
        },
        business_id,
        uid: around.uid.clone(),
        flow: text("flow").map(|flow| redact::text(&flow).chars().take(64).collect()),
        change: if removed {
            InstallChange::Uninstalled
        } else {
            InstallChange::Granted {
                granted: Box::new(granted),
                token: token.map(|token| Token {
                    value: SecretString::from(token),
                    token_type: TokenType::from(text("token_type").unwrap_or_default()),
                }),
            }
        },
    })
}

/// Chosen by the partner, so `0` is a business like any other where it is a string of several digits, but a
/// lone `"0"` is Meta's "none".
fn business_id(value: &Value) -> Option<String> {
    Scalar::from(value).id().filter(|id| id != "0")
}

/// The members of a list; anything else is a list of one.
fn items(value: &Value) -> &[Value] {
    match value {
        Value::Array(items) => items,
        Value::Null => &[],
        single => std::slice::from_ref(single),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::webhook::Received;
    use serde_json::json;

    fn read(body: impl Into<bytes::Bytes>) -> Parsed {
        let (secret, body) = (SecretString::from("s"), body.into());
        let signature = crate::webhook::signature::sign(&secret, &body);
        let verified = Received::new(body, Some(&signature)).verify([&secret]).unwrap();
        parse(&verified, received_at())
    }

    fn received_at() -> Timestamp {
        "2026-11-21T10:00:00Z".parse().unwrap()
    }

    fn reasons(parsed: &Parsed) -> Vec<Reason> {
        parsed.quarantined.iter().map(|item| item.reason).collect()
    }

    #[test]
    fn a_time_that_is_missing_or_ahead_becomes_the_receipt() {
        for time in [json!(null), json!(4_000_000_000_i64)] {
            let body = json!({"entry": [{"time": time, "changes":
                [{"field": "fbe_install", "value": {"business_id": "a", "fbe_event": "UNINSTALL"}}]}]});
            assert_eq!(read(body.to_string()).changes[0].stamp.at, received_at());
        }
    }

    #[test]
    fn a_broken_item_never_costs_its_neighbours() {
        let good =
            |id: &str| json!({"field": "fbe_install", "value": {"business_id": id, "access_token": "t"}});
        let body = json!({"object": "user", "entry": [
            {"changes": [good("a"), {"field": "fbe_install"}, 7, {"field": "photos"}, good("b")]},
            null,
            {"changed_fields": ["fbe_install"]},
            {"changes": [{"field": "fbe_install", "value": {"access_token": "EAABx"}}, good("c")]},
        ]});
        let parsed = read(body.to_string());
        let ids: Vec<_> = parsed
            .changes
            .iter()
            .map(|event| event.business_id.as_str())
            .collect();
        assert_eq!(ids, ["a", "b", "c"]);
        assert_eq!(
            reasons(&parsed),
            [
                Reason::NoValue,
                Reason::UnknownField,
                Reason::UnknownField,
                Reason::NotUnderstood,
                Reason::ValuesNotIncluded,
                Reason::NoBusinessId
            ]
        );
        let raw = &parsed.quarantined.last().unwrap().raw;
        assert!(!raw.windows(5).any(|bytes| bytes == b"EAABx"));
    }

    #[test]
    fn what_json_allows_and_others_refuse_costs_nobody_anything() {
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        let body = format!(
            r#"{{"unused":{deep},"entry":[{{"changes":[
                {{"field":"fbe_install","value":{{"business_id":"a","access_token":"t","installed_features":
                    [{{"feature_type":"ads","feature_name":"half \ud83d","key \ude00":1e400}}]}}}},
                {{"field":"fbe_install","value":{{"business_id":10000002479028556077430,"access_token":"t"}}}},
                {{"field":"fbe_install","value":{{"business_id":"lost \ud83d","access_token":"t"}}}}]}}]}}"#
        );
        let parsed = read([b"\xEF\xBB\xBF", body.as_bytes()].concat());
        let ids: Vec<_> = parsed
            .changes
            .iter()
            .map(|event| event.business_id.as_str())
            .collect();
        assert_eq!(ids, ["a", "10000002479028556077430"]);
        // Two businesses whose ids lost a character would be one.
        assert_eq!(reasons(&parsed), [Reason::NoBusinessId]);
        let InstallChange::Granted { granted, .. } = &parsed.changes[0].change else {
            panic!("removed");
        };
        assert_eq!(granted.features[0].name.as_deref(), Some("half \u{FFFD}"));
    }

    #[test]
    fn removed_is_told_from_granted() {
        for (value, removed) in [
            (
                json!({"fbe_event": "uninstall", "access_token": "t", "pages": ["1"]}),
                true,
            ),
            (json!({}), true),
            (json!({"pages": null, "access_token": ""}), true),
            (json!({"catalog_id": "1"}), true),
            (json!({"fbe_event": "INSTALL"}), false),
            (json!({"fbe_event": "MODIFY"}), false),
            (json!({"access_token": "t"}), false),
            (json!({"pages": ["1"]}), false),
            (json!({"profiles": []}), false),
        ] {
            let mut value = value;
            value["business_id"] = json!("a");
            let parsed =
                read(json!({"entry": [{"changes": [{"field": "fbe_install", "value": value}]}]}).to_string());
            let is_removed = matches!(parsed.changes[0].change, InstallChange::Uninstalled);
            assert_eq!(is_removed, removed, "{value}");
        }
    }

    #[test]
    fn a_business_that_no_secret_can_be_named_after_is_kept_apart() {
        let parsed = read(json!({"business_id": "é".repeat(100), "access_token": "t"}).to_string());
        assert_eq!(reasons(&parsed), [Reason::BusinessIdTooLong]);
        let parsed = read(json!({"business_id": "a", "access_token": "t".repeat(20_000)}).to_string());
        assert_eq!(reasons(&parsed), [Reason::TooLarge]);
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_answered(body in proptest::collection::vec(proptest::num::u8::ANY, 0..400)) {
            let parsed = read(body);
            proptest::prop_assert!(parsed.changes.is_empty());
        }

        #[test]
        fn any_cut_of_a_real_body_is_answered(
            cut in 0..REAL.len(), flipped in 0..REAL.len(), to in proptest::num::u8::ANY
        ) {
            let mut body = REAL.as_bytes().to_vec();
            body[flipped] = to;
            body.truncate(cut);
            let parsed = read(body);
            let shown = format!("{parsed:?}");
            proptest::prop_assert!(!shown.contains("EAAB_"));
        }
    }

    const REAL: &str = include_str!("../../../events/payloads/fbe/install.json");
}
