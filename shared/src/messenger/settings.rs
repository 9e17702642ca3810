//! What is kept on the Braze profile of a Messenger or Instagram contact.

use std::time::Duration;

use super::event::event_names;
use crate::config::Env;
use crate::erase;

/// What is sent of people who are not linked to a user.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, strum::EnumString)]
#[strum(serialize_all = "lowercase", ascii_case_insensitive)]
pub enum UnlinkedContacts {
    /// An alias-only profile in Braze.
    #[default]
    Alias,
    /// Nothing until they are linked.
    Hold,
}

/// What is kept on the Braze profile of a Messenger or Instagram contact.
#[derive(Debug, Clone)]
pub struct MessengerSettings {
    /// `MESSENGER_ID_ATTRIBUTE`; may hold `{account_id}`.
    pub messenger_id_attribute: String,
    /// `INSTAGRAM_ID_ATTRIBUTE`; may hold `{account_id}`.
    pub instagram_id_attribute: String,
    /// `WINDOW_ATTRIBUTE`; `None` = off.
    pub window_attribute: Option<String>,
    /// `WINDOW_SYNC_MINUTES`: the window attribute is refreshed at most this often.
    pub window_sync: Duration,
    /// `MARKETING_ATTRIBUTE`: whether the person wants marketing messages; `None` = off.
    pub marketing_attribute: Option<String>,
    /// `MARKETING_TOKEN_ATTRIBUTE`; `None` = notification tokens are not told.
    pub marketing_token_attribute: Option<String>,
    /// `UNLINKED_CONTACTS`
    pub unlinked_contacts: UnlinkedContacts,
    /// `MESSENGER_EVENTS`: event kinds that also become custom events.
    pub events: Vec<String>,
    /// `OPT_OUT_KEYWORDS`
    pub opt_out_keywords: Vec<String>,
    /// `OPT_IN_KEYWORDS`
    pub opt_in_keywords: Vec<String>,
    /// `ERASE_KEYWORDS`: who writes one of them is erased.
    pub erase_keywords: Vec<String>,
}

impl MessengerSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let mut attribute = |name, default| Some(env.or(name, default)).filter(|name| !name.is_empty());
        let window_attribute = attribute("WINDOW_ATTRIBUTE", "messenger_window_closes_at");
        let marketing_attribute = attribute("MARKETING_ATTRIBUTE", "messenger_marketing_opted_in");
        let marketing_token_attribute = attribute("MARKETING_TOKEN_ATTRIBUTE", "");
        let minutes: u64 = env.parsed("WINDOW_SYNC_MINUTES", 60, "a whole number of minutes");
        Self {
            messenger_id_attribute: env.or("MESSENGER_ID_ATTRIBUTE", "messenger_id"),
            instagram_id_attribute: env.or("INSTAGRAM_ID_ATTRIBUTE", "instagram_id"),
            window_attribute,
            marketing_attribute,
            marketing_token_attribute,
            window_sync: Duration::from_secs(minutes * 60),
            unlinked_contacts: env.parsed("UNLINKED_CONTACTS", UnlinkedContacts::Alias, "`alias` or `hold`"),
            events: events(env),
            opt_out_keywords: env.list("OPT_OUT_KEYWORDS", "STOP,UNSUBSCRIBE"),
            opt_in_keywords: env.list("OPT_IN_KEYWORDS", "START"),
            erase_keywords: erase::keywords(env),
        }
    }
}

/// The kind in `MESSENGER_EVENTS` that reports messages which were not sent.
pub const SEND_FAILED: &str = "send_failed";

/// Reads `MESSENGER_EVENTS`.
pub fn events(env: &mut Env<'_>) -> Vec<String> {
    let events: Vec<String> = env
        .list("MESSENGER_EVENTS", "")
        .into_iter()
        .map(|event| event.to_ascii_lowercase())
        .collect();
    for event in &events {
        let mut known = event_names().chain([SEND_FAILED]);
        if !known.any(|name| name == event) {
            let known = event_names().chain([SEND_FAILED]).collect::<Vec<_>>().join(", ");
            env.problem(format!(
                "MESSENGER_EVENTS names `{event}`, but knows only {known}"
            ));
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_the_documented_ones() {
        let settings = Env::from_pairs(&[]).finish(MessengerSettings::read).unwrap();
        assert_eq!(settings.messenger_id_attribute, "messenger_id");
        assert_eq!(
            settings.window_attribute.as_deref(),
            Some("messenger_window_closes_at")
        );
        assert_eq!(settings.window_sync, Duration::from_hours(1));
        assert_eq!(settings.opt_out_keywords, ["STOP", "UNSUBSCRIBE"]);
        assert!(settings.events.is_empty());
    }

    #[test]
    fn an_event_that_does_not_exist_is_named() {
        let pairs = [("MESSENGER_EVENTS", "message, massage")];
        let error = Env::from_pairs(&pairs)
            .finish(MessengerSettings::read)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("`massage`") && error.contains("postback"),
            "{error}"
        );
    }

    #[test]
    fn an_empty_window_attribute_switches_it_off() {
        let settings = Env::from_pairs(&[("WINDOW_ATTRIBUTE", "")])
            .finish(MessengerSettings::read)
            .unwrap();
        assert_eq!(settings.window_attribute, None);
    }
}
