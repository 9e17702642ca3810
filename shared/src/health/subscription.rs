//! Subscriptions: the app's says where webhooks go, a page's that it sends any.

use super::check::Check;
use super::refusal::{of_app as of_app_remedy, remedy};
use super::settings::INSTAGRAM_FIELDS;
use crate::clients::graph::GraphError;
use crate::clients::graph::app::{AppSubscription, PageSubscription};

const SETUP: &str = "run `bridge setup`";
/// What a person does where Graph does not let us.
pub const INSTAGRAM_BY_HAND: &str = "in Meta's dashboard, under Instagram > Webhooks: the same callback URL and verify token, then \
                                     messages, messaging_postbacks, messaging_optins, messaging_referral, message_reactions";

/// The members of `wanted` that `got` lacks.
#[must_use]
pub fn missing(wanted: &[String], got: &[String]) -> Vec<String> {
    wanted
        .iter()
        .filter(|field| !got.contains(field))
        .cloned()
        .collect()
}

/// The app's subscription to pages.
#[must_use]
pub fn of_app(subscriptions: &[AppSubscription]) -> Option<&AppSubscription> {
    subscriptions.iter().find(|one| one.object == "page")
}

/// A page's subscription of our app.
#[must_use]
pub fn of_page<'a>(subscriptions: &'a [PageSubscription], app_id: &str) -> Option<&'a PageSubscription> {
    subscriptions.iter().find(|one| one.app_id == app_id)
}

/// Whether the app's webhooks come to `callback_url`, with all the fields. `with_instagram` = Instagram accounts are
/// connected as well.
#[must_use]
pub fn app_subscription(
    answer: Result<&[AppSubscription], &GraphError>,
    callback_url: &str,
    wanted: &[String],
    with_instagram: bool,
) -> Check {
    const NAME: &str = "app_subscription";
    let subscriptions = match answer {
        Ok(subscriptions) => subscriptions,
        Err(error) => return Check::fail(NAME, error.to_string(), of_app_remedy(error)),
    };
    let Some(page) = of_app(subscriptions) else {
        return Check::fail(
            NAME,
            "the app is not subscribed to pages: Meta sends nothing",
            SETUP,
        );
    };
    if page.callback_url != callback_url {
        return Check::fail(
            NAME,
            format!("webhooks go to {}, not to {callback_url}", page.callback_url),
            format!("{SETUP}, unless that address is meant: an app has one callback URL"),
        );
    }
    if !page.is_active {
        return Check::fail(
            NAME,
            "Meta has switched the subscription off, as it does after an hour of failures",
            format!("see that `handshake` and `signature` pass, then {SETUP}, which switches it on again"),
        );
    }
    let missing = missing(wanted, &page.fields);
    if !missing.is_empty() {
        return Check::warn(NAME, format!("without the fields {}", missing.join(", ")), SETUP);
    }
    if with_instagram && let Some(check) = instagram(subscriptions, callback_url) {
        return check;
    }
    Check::ok(NAME, format!("{} fields to {callback_url}", page.fields.len()))
}

/// What is wrong with the app's subscription to Instagram accounts.
fn instagram(subscriptions: &[AppSubscription], callback_url: &str) -> Option<Check> {
    let subscription = subscriptions.iter().find(|one| one.object == "instagram");
    let problem = match subscription {
        None => "the app is not subscribed to Instagram accounts".to_owned(),
        Some(one) if one.callback_url != callback_url => {
            format!("Instagram's webhooks go to {}", one.callback_url)
        }
        Some(one) if !one.is_active => "Meta has switched the subscription to Instagram off".to_owned(),
        Some(one) if !one.fields.iter().any(|field| field == INSTAGRAM_FIELDS[0]) => {
            "the subscription to Instagram is without messages".to_owned()
        }
        Some(_) => return None,
    };
    Some(Check::warn(
        "app_subscription",
        problem,
        format!("{SETUP}, or do it {INSTAGRAM_BY_HAND}"),
    ))
}

/// Whether a page sends its events to the app, with all the fields.
#[must_use]
pub fn page_subscription(
    page_id: &str,
    answer: Result<&[PageSubscription], &GraphError>,
    app_id: &str,
    wanted: &[String],
) -> Check {
    let name = format!("page_subscription:{page_id}");
    let subscriptions = match answer {
        Ok(subscriptions) => subscriptions,
        Err(error) => return Check::fail(&name, error.to_string(), remedy(error)),
    };
    let Some(own) = of_page(subscriptions, app_id) else {
        let others = match subscriptions.len() {
            0 => "no app".to_owned(),
            1 => "another app".to_owned(),
            count => format!("{count} other apps"),
        };
        return Check::fail(
            &name,
            format!("the page sends its events to {others}, not to {app_id}"),
            format!("run `bridge setup --page {page_id}`"),
        );
    };
    let missing = missing(wanted, &own.fields);
    if missing.is_empty() {
        Check::ok(&name, format!("{} fields", own.fields.len()))
    } else {
        Check::warn(
            &name,
            format!("without the fields {}", missing.join(", ")),
            format!(
                "run `bridge setup --page {page_id}`; a field that is refused there needs another permission"
            ),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::Status;
    use super::*;

    const URL: &str = "https://x/messenger/webhook";

    fn fields(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn of(object: &str, callback_url: &str, is_active: bool, names: &[&str]) -> AppSubscription {
        AppSubscription {
            object: object.to_owned(),
            callback_url: callback_url.to_owned(),
            is_active,
            fields: fields(names),
        }
    }

    #[test]
    fn an_app_subscription_is_there_active_ours_and_whole() {
        let wanted = fields(&["messages", "messaging_optins"]);
        let check = |subscriptions: &[AppSubscription], instagram| {
            let check = app_subscription(Ok(subscriptions), URL, &wanted, instagram);
            (check.status, check.message)
        };
        let good = of("page", URL, true, &["messages", "messaging_optins"]);
        assert_eq!(check(std::slice::from_ref(&good), false).0, Status::Ok);
        assert_eq!(check(std::slice::from_ref(&good), true).0, Status::Warn);
        let whole = [good, of("instagram", URL, true, &["messages"])];
        assert_eq!(check(&whole, true).0, Status::Ok);
        for (bad, status, told) in [
            (of("user", URL, true, &[]), Status::Fail, "not subscribed"),
            (
                of("page", "https://y", true, &["messages"]),
                Status::Fail,
                "https://y",
            ),
            (of("page", URL, false, &["messages"]), Status::Fail, "switched"),
            (
                of("page", URL, true, &["messages"]),
                Status::Warn,
                "messaging_optins",
            ),
        ] {
            let (got, message) = check(&[bad], false);
            assert!(got == status && message.contains(told), "{message}");
        }
    }

    #[test]
    fn a_page_is_subscribed_by_our_app_alone() {
        let subscription = |app: &str, names: &[&str]| PageSubscription {
            app_id: app.to_owned(),
            fields: fields(names),
        };
        let wanted = fields(&["messages"]);
        let check =
            |subscriptions: &[PageSubscription]| page_subscription("7", Ok(subscriptions), "1", &wanted);
        assert_eq!(check(&[subscription("1", &["messages"])]).status, Status::Ok);
        assert_eq!(check(&[subscription("1", &["feed"])]).status, Status::Warn);
        assert_eq!(check(&[]).status, Status::Fail);
        let other = check(&[subscription("2", &["messages"])]);
        assert!(other.status == Status::Fail && other.message.contains("another app"));
        assert_eq!(other.name, "page_subscription:7");
    }
}
