//! `app`, `app_subscription`, `page_subscription:…`, `page_token:…`, `graph_version`.

use jiff::Timestamp;
use jiff::civil::Date;
use secrecy::ExposeSecret as _;
use shared::clients::graph::{GraphApp, GraphClient};
use shared::health::{Check, HealthSettings, look_at_pages, refusal, subscription};
use shared::secrets::MetaSecret;

use super::FILL_IN;
use crate::target::Target;

/// With fewer days left it is time for another version.
const WARN_DAYS: i64 = 90;

/// When versions end. <https://developers.facebook.com/docs/graph-api/changelog/versions>; the last is ours: two years
/// after its successor came, as with the others.
const ENDS: [(u16, Date); 9] = [
    (18, Date::constant(2026, 1, 26)),
    (19, Date::constant(2026, 5, 21)),
    (20, Date::constant(2026, 9, 24)),
    (21, Date::constant(2027, 1, 21)),
    (22, Date::constant(2027, 5, 20)),
    (23, Date::constant(2027, 10, 8)),
    (24, Date::constant(2028, 2, 18)),
    (25, Date::constant(2028, 7, 29)),
    (26, Date::constant(2028, 11, 4)),
];

pub(super) async fn checks(target: &Target, meta: Option<&MetaSecret>, now: Timestamp) -> Vec<Check> {
    let mut checks = match (target.graph(), target.health(), meta) {
        (Err(error), ..) | (_, Err(error), _) => not_asked(&format!("{error:#}"), "see `settings`"),
        (.., None) => not_asked("the meta secret cannot be read", FILL_IN),
        (.., Some(meta)) if meta.app_id.is_empty() || meta.app_secret.expose_secret().is_empty() => {
            not_asked("app_id or app_secret of the meta secret is empty", FILL_IN)
        }
        (Ok(graph), Ok(health), Some(meta)) => Box::pin(asked(target, &graph, &health, meta, now)).await,
    };
    checks.push(match target.graph_settings() {
        Ok(settings) => version(&settings.version, now),
        Err(error) => Check::fail("graph_version", format!("{error:#}"), "see `settings`"),
    });
    checks
}

fn not_asked(why: &str, remedy: &str) -> Vec<Check> {
    let checks =
        ["app", "app_subscription"].map(|name| Check::fail(name, format!("not asked: {why}"), remedy));
    checks.to_vec()
}

async fn asked(
    target: &Target,
    graph: &GraphClient,
    health: &HealthSettings,
    meta: &MetaSecret,
    now: Timestamp,
) -> Vec<Check> {
    let app = GraphApp::new(&meta.app_id, &meta.app_secret);
    let tokens = &meta.page_access_tokens;
    let (name, subscriptions, pages) = tokio::join!(
        graph.app_name(&app),
        graph.app_subscriptions(&app),
        look_at_pages(graph, &app, tokens),
    );
    let mut checks = vec![match name {
        Ok(name) => Check::ok(
            "app",
            format!("{name} ({}); whether it is live, no call says", app.id),
        ),
        Err(error) => Check::fail("app", error.to_string(), refusal::of_app(&error)),
    }];
    let with_instagram = pages.iter().any(|seen| !seen.instagram.is_empty());
    checks.push(subscription::app_subscription(
        subscriptions.as_deref(),
        &target.urls.messenger,
        &health.subscribed_fields,
        with_instagram,
    ));
    checks.extend(
        pages
            .iter()
            .map(|seen| seen.subscription_check(&app.id, &health.subscribed_fields)),
    );
    checks.extend(pages.iter().map(|seen| seen.token_check(&app.id, now)));
    if pages.is_empty() {
        checks.push(Check::warn(
            "page_token:none",
            "no page's token is kept, so no page is looked at",
            "run `bridge setup --user-token …`; without Messenger and Instagram there is nothing to do",
        ));
    }
    checks
}

fn version(version: &str, now: Timestamp) -> Check {
    const NAME: &str = "graph_version";
    let newest = shared::clients::graph::DEFAULT_VERSION;
    let number = version.strip_prefix('v').and_then(|rest| rest.split('.').next());
    let number: u16 = number.and_then(|number| number.parse().ok()).unwrap_or_default();
    let end = ENDS.iter().find(|(known, _)| *known == number);
    let end = match (end, ENDS.first()) {
        (Some((_, end)), _) => *end,
        (None, Some((oldest, end))) if number < *oldest => *end,
        _ => return Check::ok(NAME, format!("{version}, whose end is not announced")),
    };
    let today = now.to_zoned(jiff::tz::TimeZone::UTC).date();
    let days = i64::from(today.until(end).map(|span| span.get_days()).unwrap_or_default());
    let remedy = format!("set GraphApiVersion to {newest} (or leave it out) and deploy");
    if days <= 0 {
        Check::fail(NAME, format!("{version} ended on {end}"), remedy)
    } else if days < WARN_DAYS {
        Check::warn(NAME, format!("{version} ends on {end}, in {days} days"), remedy)
    } else {
        Check::ok(NAME, format!("{version}, until about {end}"))
    }
}

#[cfg(test)]
mod tests {
    use shared::health::Status;

    use super::*;

    #[test]
    fn versions_near_their_end_are_named() {
        let at = |day: &str| -> Timestamp { format!("{day}T12:00:00Z").parse().unwrap() };
        for (name, day, status) in [
            ("v26.0", "2026-11-28", Status::Ok),
            ("v26.0", "2028-09-01", Status::Warn),
            ("v25.0", "2028-07-29", Status::Fail),
            ("v24.0", "2027-12-24", Status::Warn),
            ("v12.0", "2026-11-28", Status::Fail),
            ("v31.0", "2030-01-01", Status::Ok),
        ] {
            let check = version(name, at(day));
            assert_eq!(check.status, status, "{name} on {day}: {}", check.message);
        }
    }

    #[test]
    fn the_version_that_is_used_has_an_end() {
        assert!(
            version(shared::clients::graph::DEFAULT_VERSION, Timestamp::UNIX_EPOCH)
                .message
                .contains("until")
        );
    }
}
