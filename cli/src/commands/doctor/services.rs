//! `clock`, `braze_key`, `trigger_key`, `external_system`.

use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use shared::clients::http;
use shared::clock::Clock;
use shared::config::Env;
use shared::erase::EraseInBraze;
use shared::health::Check;
use shared::secrets::{BrazeSecret, RelaySecret};
use shared::whatsapp::settings::{ExternalSystemKind, RelaySettings};

use super::FILL_IN;
use crate::probe;
use crate::target::Target;

const TIMEOUT: Duration = Duration::from_secs(15);
/// Signatures carry a time, and AWS refuses calls that are five minutes off.
const WARN_SECONDS: i64 = 60;

pub(super) async fn clock(target: &Target, clock: &Clock) -> Check {
    const NAME: &str = "clock";
    let graph = target.graph_settings().map(|graph| graph.url).ok();
    let mut time = None;
    for url in [&target.urls.messenger].into_iter().chain(&graph) {
        if time.is_none() {
            time = probe::server_time(url).await;
        }
    }
    let Some(time) = time else {
        return Check::warn(
            NAME,
            "not compared: no server says what time it is",
            "look at the checks that fail, then run this again",
        );
    };
    // Theirs is a whole second.
    let off = clock.now().duration_since(time).as_secs();
    if off.abs() <= WARN_SECONDS {
        Check::ok(
            NAME,
            format!("this machine's is within {WARN_SECONDS} s of theirs"),
        )
    } else {
        Check::warn(
            NAME,
            format!("this machine's clock is {off} s off"),
            "set it by NTP: signatures and tokens are refused when they are too old or too new",
        )
    }
}

/// `braze_key` and `trigger_key`.
pub(super) async fn braze(target: &Target, secret: Option<&BrazeSecret>) -> Vec<Check> {
    let (endpoint, secret) = match (target.setting("BRAZE_REST_ENDPOINT"), secret) {
        (Some(endpoint), Some(secret)) => (endpoint, secret),
        (None, _) => return not_asked("BRAZE_REST_ENDPOINT is not set", "see `settings`"),
        (_, None) => return not_asked("the braze secret cannot be read", FILL_IN),
    };
    let endpoint = endpoint.trim_end_matches('/');
    let key = &secret.api_key;
    let mut own = probe_key(endpoint, "users/track", key).await;
    if own.is_ok() {
        own = probe_key(endpoint, "users/identify", key).await;
    }
    let relay = relay(target);
    let is_used = relay.as_ref().is_some_and(|relay| !systems(relay).is_empty());
    let trigger = if is_used || secret.trigger_api_key.is_some() {
        let result = probe_key(endpoint, "campaigns/trigger/send", secret.trigger_api_key()).await;
        check(
            "trigger_key",
            result.map(|()| "campaigns.trigger.send is allowed"),
        )
    } else {
        Check::ok("trigger_key", "not needed: the WhatsApp relay is not used")
    };
    vec![
        match own {
            Ok(()) => erasing_key(target, endpoint, key).await,
            Err(refused) => check("braze_key", Err(refused)),
        },
        trigger,
    ]
}

/// Erasures delete profiles, unless Braze is left alone.
async fn erasing_key(target: &Target, endpoint: &str, key: &SecretString) -> Check {
    let in_braze = Env::new(|name| target.setting(name)).finish(EraseInBraze::read);
    if in_braze.ok() == Some(EraseInBraze::Keep) {
        return Check::ok("braze_key", "users.track and users.identify are allowed");
    }
    match probe_key(endpoint, "users/delete", key).await {
        Ok(()) => Check::ok(
            "braze_key",
            "users.track, users.identify and users.delete are allowed",
        ),
        Err((message, remedy)) => Check::warn(
            "braze_key",
            format!("{message}: people are not erased until it is allowed"),
            remedy,
        ),
    }
}

fn not_asked(why: &str, remedy: &str) -> Vec<Check> {
    let checks =
        ["braze_key", "trigger_key"].map(|name| Check::fail(name, format!("not asked: {why}"), remedy));
    checks.to_vec()
}

fn check(name: &str, result: Result<&str, (String, String)>) -> Check {
    match result {
        Ok(message) => Check::ok(name, message),
        Err((message, remedy)) => Check::fail(name, message, remedy),
    }
}

/// An empty request is refused for being empty, which shows that the key is good, and changes nothing. What Braze says
/// is left out: its refusals repeat the key.
async fn probe_key(endpoint: &str, path: &str, key: &SecretString) -> Result<(), (String, String)> {
    if key.expose_secret().is_empty() {
        return Err(("the key is empty".to_owned(), FILL_IN.to_owned()));
    }
    let request = http::client(TIMEOUT)
        .post(format!("{endpoint}/{path}"))
        .bearer_auth(key.expose_secret());
    let request = request.header("content-type", "application/json").body("{}");
    let permission = path.replace('/', ".");
    let status = match request.send().await {
        Ok(answer) => answer.status().as_u16(),
        Err(error) => {
            let message = format!("Braze does not answer at {endpoint} ({})", error.without_url());
            return Err((
                message,
                "look at BrazeRestEndpoint: Settings > APIs and Identifiers shows it".to_owned(),
            ));
        }
    };
    let remedy = match status {
        200..=299 | 400 => return Ok(()),
        401 => {
            "the key is not one of this instance: write the right one into the braze secret, and look at BrazeRestEndpoint"
        }
        403 => {
            "give the key this permission in Braze, under Settings > APIs and Identifiers; a new key may be needed"
        }
        404 | 405 => "this is no REST endpoint of Braze: look at BrazeRestEndpoint",
        429 => "Braze limits our calls: try again in some minutes",
        _ => "Braze has a moment of trouble: try again in some minutes; https://braze.statuspage.io",
    };
    Err((
        format!("Braze answers {status} to {permission}"),
        remedy.to_owned(),
    ))
}

fn relay(target: &Target) -> Option<RelaySettings> {
    Env::new(|name| target.setting(name))
        .finish(RelaySettings::read)
        .ok()
}

/// The external systems: route, kind, address.
fn systems(relay: &RelaySettings) -> Vec<(Option<&str>, ExternalSystemKind, &str)> {
    let own = relay.external_system_url.as_deref();
    let own = own.map(|url| (None, relay.external_system_kind, url));
    let routes = relay.rules.routes.iter().filter_map(|route| {
        let kind = route.kind.unwrap_or(relay.external_system_kind);
        Some((
            Some(route.name.as_str()),
            kind,
            route.external_system_url.as_deref()?,
        ))
    });
    own.into_iter().chain(routes).collect()
}

pub(super) async fn external_system(target: &Target, secret: Option<&RelaySecret>) -> Check {
    const NAME: &str = "external_system";
    let Some(relay) = relay(target) else {
        return Check::fail(NAME, "the relay's settings are wrong", "see `settings`");
    };
    let systems = systems(&relay);
    if systems.is_empty() {
        return Check::ok(NAME, "the WhatsApp relay is not used");
    }
    let client = http::client(TIMEOUT);
    let mut answers = Vec::new();
    for (route, kind, url) in systems {
        // Asks for nothing: a POST would be a message.
        let request = match kind {
            ExternalSystemKind::Webhook => client.head(url),
            ExternalSystemKind::Openai => {
                let (path, query) = url
                    .split_once('?')
                    .map_or((url, String::new()), |(path, query)| (path, format!("?{query}")));
                let request = client.get(format!("{}/models{query}", path.trim_end_matches('/')));
                let key = secret.and_then(|secret| secret.credentials(route).openai_api_key);
                match key {
                    Some(key) => request.bearer_auth(key.expose_secret()),
                    None => request,
                }
            }
        };
        let whose = route
            .map(|route| format!(" of route {route}"))
            .unwrap_or_default();
        match request.send().await {
            Err(error) => {
                return Check::fail(
                    NAME,
                    format!(
                        "the system{whose} does not answer at {url} ({})",
                        error.without_url()
                    ),
                    "see that it runs and can be reached from AWS; EXTERNAL_SYSTEM_URL says where it is looked for",
                );
            }
            Ok(answer)
                if kind == ExternalSystemKind::Openai && matches!(answer.status().as_u16(), 401 | 403) =>
            {
                return Check::fail(
                    NAME,
                    format!(
                        "the system{whose} answers {} to its key",
                        answer.status().as_u16()
                    ),
                    "write the right openai_api_key into the relay secret",
                );
            }
            Ok(answer) if answer.status().is_server_error() => {
                return Check::warn(
                    NAME,
                    format!("the system{whose} answers {}", answer.status().as_u16()),
                    "look at its log",
                );
            }
            Ok(answer) => answers.push(format!("answers{whose} ({})", answer.status().as_u16())),
        }
    }
    Check::ok(NAME, answers.join(", "))
}
