//! What a subscription should hold.

use crate::config::Env;

/// Fields of a page that the bridge reads.
pub const DEFAULT_FIELDS: &str = "messages,messaging_postbacks,messaging_optins,messaging_optouts,messaging_referrals,\
                                  messaging_account_linking,message_reactions,message_deliveries";

/// The same of an Instagram account, whose fields have other names.
pub const INSTAGRAM_FIELDS: [&str; 5] = [
    "messages",
    "messaging_postbacks",
    "messaging_optins",
    "messaging_referral",
    "message_reactions",
];

/// What the health check reads from the environment.
#[derive(Debug, Clone)]
pub struct HealthSettings {
    /// `SUBSCRIBED_FIELDS`
    pub subscribed_fields: Vec<String>,
    /// `AUTO_RESUBSCRIBE`: what has lost its subscription is subscribed again.
    pub auto_resubscribe: bool,
}

impl HealthSettings {
    /// Reads the group.
    pub fn read(env: &mut Env<'_>) -> Self {
        let settings = Self {
            subscribed_fields: env.list("SUBSCRIBED_FIELDS", DEFAULT_FIELDS),
            auto_resubscribe: env.parsed("AUTO_RESUBSCRIBE", true, "`true` or `false`"),
        };
        if settings.subscribed_fields.is_empty() {
            env.problem("SUBSCRIBED_FIELDS is empty, but expects a comma list of fields, such as `messages`");
        }
        settings
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_field_at_all_is_a_problem() {
        let settings = Env::from_pairs(&[]).finish(HealthSettings::read).unwrap();
        assert_eq!(settings.subscribed_fields.len(), 8);
        assert!(settings.auto_resubscribe);
        for pair in [("SUBSCRIBED_FIELDS", ","), ("AUTO_RESUBSCRIBE", "maybe")] {
            let error = Env::from_pairs(&[pair]).finish(HealthSettings::read).unwrap_err();
            assert!(error.to_string().contains(pair.0), "{error}");
        }
    }
}
