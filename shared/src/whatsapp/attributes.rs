//! Which attributes of a profile an external system may not write.

use crate::config::Env;

/// The boolean attribute that says that a human has the conversation.
pub const HUMAN_AGENT_ATTRIBUTE: &str = "whatsapp_human_agent";

/// Names that Braze does not take for custom attributes: they say who it is, or what may be sent to them. Exactly as
/// spelled here; any other spelling is a custom attribute.
/// <https://www.braze.com/docs/api/objects_filters/user_attributes_object>
const OF_BRAZE: [&str; 31] = [
    "external_id",
    "user_alias",
    "alias_name",
    "alias_label",
    "braze_id",
    "_update_existing_only",
    "push_token_import",
    "_merge_objects",
    "first_name",
    "last_name",
    "email",
    "phone",
    "dob",
    "gender",
    "country",
    "home_city",
    "language",
    "time_zone",
    "current_location",
    "image_url",
    "email_subscribe",
    "push_subscribe",
    "subscription_groups",
    "email_open_tracking_disabled",
    "email_click_tracking_disabled",
    "marked_email_as_spam_at",
    "date_of_first_session",
    "date_of_last_session",
    "push_tokens",
    "facebook",
    "twitter",
];

/// What the bridge itself keeps, beside what its settings name.
const OF_BRIDGE: [&str; 3] = [
    HUMAN_AGENT_ATTRIBUTE,
    "messenger_opted_out",
    "instagram_opted_out",
];

/// Where a setting's name stands for one attribute of each account.
const ACCOUNT: &str = "{account_id}";

/// The attributes that are the bridge's own, or the profile's: no answer may write them.
#[derive(Debug, Clone)]
pub struct Reserved(Vec<String>);

impl Reserved {
    /// Reads the names that the settings give the bridge's own attributes.
    pub fn read(env: &mut Env<'_>) -> Self {
        let mut names = vec![
            env.or("MESSENGER_ID_ATTRIBUTE", "messenger_id"),
            env.or("INSTAGRAM_ID_ATTRIBUTE", "instagram_id"),
        ];
        let of_both = [
            env.or("WINDOW_ATTRIBUTE", "messenger_window_closes_at"),
            env.or("MARKETING_ATTRIBUTE", "messenger_marketing_opted_in"),
            env.or("MARKETING_TOKEN_ATTRIBUTE", ""),
        ];
        for name in of_both {
            // As Instagram's contacts have it.
            if let Some(rest) = name.strip_prefix("messenger") {
                names.push(format!("instagram{rest}"));
            }
            names.push(name);
        }
        names.retain(|name| !name.is_empty());
        Self(names)
    }

    /// Whether an answer may not write this attribute.
    #[must_use]
    pub fn includes(&self, name: &str) -> bool {
        OF_BRAZE.contains(&name)
            || OF_BRIDGE.contains(&name)
            || self.0.iter().any(|reserved| is_named(reserved, name))
    }
}

fn is_named(reserved: &str, name: &str) -> bool {
    match reserved.split_once(ACCOUNT) {
        Some((before, behind)) => {
            name.len() > before.len() + behind.len() && name.starts_with(before) && name.ends_with(behind)
        }
        None => reserved == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_custom_attributes_can_be_written() {
        let pairs = [
            ("MESSENGER_ID_ATTRIBUTE", "psid_{account_id}"),
            ("MARKETING_TOKEN_ATTRIBUTE", "messenger_token"),
        ];
        let reserved = Env::from_pairs(&pairs).finish(Reserved::read).unwrap();
        for name in [
            "email",
            "external_id",
            "subscription_groups",
            "push_tokens",
            "whatsapp_human_agent",
            "messenger_opted_out",
            "psid_4711",
            "instagram_id",
            "messenger_window_closes_at",
            "instagram_window_closes_at",
            "instagram_marketing_opted_in",
            "messenger_token",
        ] {
            assert!(reserved.includes(name), "{name}");
        }
        for name in [
            "topic",
            "Email",
            "First_Name",
            "messenger_id",
            "psid_",
            "emails",
            "",
        ] {
            assert!(!reserved.includes(name), "{name}");
        }
    }
}
