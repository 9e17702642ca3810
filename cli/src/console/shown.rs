//! What is shown of people, and what stands for them in addresses.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use shared::fbe::redact;
use shared::telemetry;

/// Addresses of a deployed stack's console that are remembered.
const ADDRESSES: usize = 20_000;

/// How ids and texts are shown, and how they are addressed.
pub(crate) enum Shown {
    /// As they are: on this machine.
    Plain,
    /// Addresses say nothing of anybody; ids and texts are shown only if that was asked for.
    Sealed {
        reveal: bool,
        key: String,
        known: Mutex<Known>,
    },
}

/// What the addresses handed out stand for.
#[derive(Default)]
pub(crate) struct Known {
    ids: HashMap<String, String>,
    order: VecDeque<String>,
}

impl Shown {
    /// Of a deployed stack. The key is this process's own, so that nobody can try ids out.
    pub(crate) fn sealed(reveal: bool) -> Self {
        Self::Sealed {
            reveal,
            key: super::access::random(),
            known: Mutex::default(),
        }
    }

    /// Whether ids and texts are shown.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Self::Plain | Self::Sealed { reveal: true, .. })
    }

    /// An id, or what stands for it: the same for the same id as long as the console runs.
    pub(crate) fn id(&self, id: &str) -> String {
        match self {
            Self::Sealed {
                reveal: false, key, ..
            } => format!("•{}", stand_in(key, id)),
            _ => id.to_owned(),
        }
    }

    /// A text, or how long it is.
    pub(crate) fn text(&self, text: &str) -> String {
        if self.is_open() {
            return text.to_owned();
        }
        format!("({} characters)", text.chars().count())
    }

    /// A payload without its credentials; `None` if it is not shown.
    pub(crate) fn json(&self, value: &Value) -> Option<String> {
        let shown = || serde_json::to_string_pretty(&redact::value(value)).unwrap_or_default();
        self.is_open().then(shown)
    }

    /// The part of an address that stands for an id.
    pub(crate) fn address(&self, id: &str) -> String {
        match self {
            Self::Plain => utf8_percent_encode(id, NON_ALPHANUMERIC).to_string(),
            Self::Sealed { key, known, .. } => {
                let name = stand_in(key, &format!("address\n{id}"));
                let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
                if known.ids.insert(name.clone(), id.to_owned()).is_none() {
                    known.order.push_back(name.clone());
                    if known.order.len() > ADDRESSES
                        && let Some(oldest) = known.order.pop_front()
                    {
                        known.ids.remove(&oldest);
                    }
                }
                name
            }
        }
    }

    /// The id behind a part of an address, which is decoded already.
    pub(crate) fn open(&self, part: &str) -> Option<String> {
        match self {
            Self::Plain => Some(part.to_owned()),
            Self::Sealed { known, .. } => {
                let known = known.lock().unwrap_or_else(PoisonError::into_inner);
                known.ids.get(part).cloned()
            }
        }
    }
}

fn stand_in(key: &str, id: &str) -> String {
    let mut hash = telemetry::keyed_hash_by(key, id);
    hash.truncate(16);
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deployed_stacks_address_says_nothing_and_leads_back() {
        let shown = Shown::sealed(false);
        let address = shown.address("messenger#1#5275811702764837");
        assert!(address.len() == 16 && !address.contains("52758"), "{address}");
        assert_eq!(shown.address("messenger#1#5275811702764837"), address);
        assert_eq!(
            shown.open(&address).as_deref(),
            Some("messenger#1#5275811702764837")
        );
        assert_eq!(shown.open("0011223344556677"), None);
        assert_ne!(
            Shown::sealed(false).address("messenger#1#5275811702764837"),
            address
        );
    }

    #[test]
    fn ids_and_texts_are_hidden_unless_asked_for() {
        let hidden = Shown::sealed(false);
        assert!(!hidden.id("user:42").contains("42:") && hidden.id("user:42") != hidden.id("user:43"));
        assert_eq!(hidden.text("grüße"), "(5 characters)");
        assert_eq!(hidden.json(&Value::from("text")), None);
        let revealed = Shown::sealed(true);
        assert_eq!(
            (revealed.id("user:42").as_str(), revealed.text("hi").as_str()),
            ("user:42", "hi")
        );
        let payload = serde_json::json!({"access_token": "EAAB_secret", "text": "hi"});
        let shown = revealed.json(&payload).unwrap();
        assert!(shown.contains("hi") && !shown.contains("EAAB"), "{shown}");
    }
}
