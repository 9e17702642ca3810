//! A page's token: whether it works, for this app and page, with the permissions, and for how long.

use jiff::Timestamp;

use super::check::Check;
use super::refusal::{NEW_TOKEN, dead_token, of_app};
use crate::clients::graph::GraphError;
use crate::clients::graph::app::TokenFacts;

/// With fewer days left it is time to act.
pub const WARN_DAYS: i64 = 14;

/// To receive and to answer.
pub const SCOPES: [&str; 2] = ["pages_messaging", "pages_manage_metadata"];
/// The same where an Instagram account is linked to the page.
pub const INSTAGRAM_SCOPES: [&str; 2] = ["instagram_basic", "instagram_manage_messages"];

/// Access to a person's data ends 90 days after they last used the app, for these permissions alone.
fn ends_with_data_access(scope: &str) -> bool {
    matches!(
        scope,
        "instagram_basic" | "instagram_manage_messages" | "manage_business_extension" | "catalog_management"
    )
}

/// Whole days until a token, or what is done with it, ends: 0 for a dead one, `None` for one without an end.
#[must_use]
pub fn days_left(facts: &TokenFacts, now: Timestamp) -> Option<i64> {
    if !facts.is_valid {
        return Some(0);
    }
    let data_access = facts
        .data_access_expires_at
        .filter(|_| facts.scopes.iter().any(|scope| ends_with_data_access(scope)));
    let end = facts.expires_at.into_iter().chain(data_access).min()?;
    Some(end.duration_since(now).as_hours().max(0) / 24)
}

/// Whether the token that is kept for `page_id` is good. `instagram` are the accounts that the same token is kept for.
#[must_use]
pub fn page_token(
    page_id: &str,
    answer: Result<&TokenFacts, &GraphError>,
    app_id: &str,
    instagram: &[String],
    now: Timestamp,
) -> Check {
    let name = format!("page_token:{page_id}");
    let facts = match answer {
        Ok(facts) => facts,
        Err(error) => return Check::fail(&name, error.to_string(), of_app(error)),
    };
    if let Some(other) = facts.app_id.as_deref().filter(|id| *id != app_id) {
        return Check::fail(
            &name,
            format!("the token belongs to app {other}, not to {app_id}"),
            format!("make the token with app {app_id}: {NEW_TOKEN}"),
        );
    }
    if !facts.is_valid {
        let (subcode, message) = facts.error.clone().unwrap_or_default();
        return Check::fail(
            &name,
            format!("the token is dead: {message}"),
            dead_token(subcode),
        );
    }
    if let Some(kind) = facts.kind.as_deref().filter(|kind| *kind != "PAGE") {
        return Check::fail(
            &name,
            format!("this is a {kind} token, not the page's own"),
            NEW_TOKEN,
        );
    }
    if let Some(other) = facts.profile_id.as_deref().filter(|id| *id != page_id) {
        return Check::fail(
            &name,
            format!("the token is that of page {other}"),
            format!("run `bridge setup --page {page_id}`"),
        );
    }
    let linked = if instagram.is_empty() {
        &[][..]
    } else {
        &INSTAGRAM_SCOPES
    };
    let missing: Vec<&str> = SCOPES
        .iter()
        .chain(linked)
        .copied()
        .filter(|scope| !facts.scopes.iter().any(|granted| granted == scope))
        .collect();
    if !missing.is_empty() {
        return Check::warn(
            &name,
            format!("the token is without {}", missing.join(", ")),
            format!(
                "log in again and grant them, as permissions are fixed when a token is made; then {NEW_TOKEN}"
            ),
        );
    }
    match days_left(facts, now) {
        Some(days) if days < WARN_DAYS => Check::warn(
            &name,
            format!("the token ends in {days} days"),
            format!("{NEW_TOKEN}; a token made from a long-lived one does not end"),
        ),
        Some(days) => Check::ok(&name, format!("valid for {days} days")),
        None => Check::ok(&name, "valid, without an end"),
    }
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;

    use super::super::Status;
    use super::*;

    fn good() -> TokenFacts {
        TokenFacts {
            is_valid: true,
            app_id: Some("1".to_owned()),
            kind: Some("PAGE".to_owned()),
            profile_id: Some("7".to_owned()),
            scopes: SCOPES.map(str::to_owned).to_vec(),
            ..TokenFacts::default()
        }
    }

    fn in_days(days: i64) -> Timestamp {
        Timestamp::UNIX_EPOCH + SignedDuration::from_hours(24 * days)
    }

    fn check(facts: &TokenFacts, instagram: &[String]) -> (Status, String) {
        let check = page_token("7", Ok(facts), "1", instagram, Timestamp::UNIX_EPOCH);
        assert_eq!(check.name, "page_token:7");
        assert_eq!(check.remedy.is_none(), check.status == Status::Ok);
        (check.status, check.message)
    }

    #[test]
    fn a_good_token_is_good_with_or_without_an_end() {
        assert_eq!(check(&good(), &[]).0, Status::Ok);
        let ends = TokenFacts {
            expires_at: Some(in_days(30)),
            ..good()
        };
        assert!(check(&ends, &[]).1.contains("30 days"));
    }

    #[test]
    fn what_is_wrong_with_a_token_is_named() {
        let some = |text: &str| Some(text.to_owned());
        for (facts, status, told) in [
            (
                TokenFacts {
                    is_valid: false,
                    error: Some((Some(460), "password".to_owned())),
                    ..good()
                },
                Status::Fail,
                "password",
            ),
            (
                TokenFacts {
                    app_id: some("2"),
                    ..good()
                },
                Status::Fail,
                "app 2",
            ),
            (
                TokenFacts {
                    kind: some("USER"),
                    ..good()
                },
                Status::Fail,
                "USER",
            ),
            (
                TokenFacts {
                    profile_id: some("8"),
                    ..good()
                },
                Status::Fail,
                "page 8",
            ),
            (
                TokenFacts {
                    scopes: vec![SCOPES[1].to_owned()],
                    ..good()
                },
                Status::Warn,
                "pages_messaging",
            ),
            (
                TokenFacts {
                    expires_at: Some(in_days(3)),
                    ..good()
                },
                Status::Warn,
                "3 days",
            ),
        ] {
            let (got, message) = check(&facts, &[]);
            assert!(got == status && message.contains(told), "{message}");
        }
    }

    #[test]
    fn the_end_of_data_access_counts_for_instagram_alone() {
        let mut facts = TokenFacts {
            data_access_expires_at: Some(in_days(5)),
            ..good()
        };
        assert_eq!(days_left(&facts, Timestamp::UNIX_EPOCH), None);
        let accounts = ["178".to_owned()];
        assert!(check(&facts, &accounts).1.contains("instagram_manage_messages"));
        facts.scopes.extend(INSTAGRAM_SCOPES.map(str::to_owned));
        assert_eq!(days_left(&facts, Timestamp::UNIX_EPOCH), Some(5));
        assert!(check(&facts, &accounts).1.contains("5 days"));
    }
}
