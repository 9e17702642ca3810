//! Logs and metrics.
//!
//! Logs are JSON lines when Lambda says so (`AWS_LAMBDA_LOG_FORMAT`). A message reads on its own *and* carries
//! fields. `error` is used only where somebody must act, and a failure is logged once, where it is handled.
//! Secrets, PSIDs, phone numbers and message text appear in none.
//!
//! Metrics go to standard output in CloudWatch's embedded format, once per invocation. Nothing is recorded
//! where no recorder is set (the local stack, tests).

use std::sync::OnceLock;

use hmac::{Hmac, KeyInit, Mac};
use lambda_runtime::tracing::Level;
use lambda_runtime::tracing::subscriber::filter::Targets;
use lambda_runtime::tracing::subscriber::prelude::*;
use lambda_runtime::tracing::subscriber::{fmt, registry};
use metrics_cloudwatch_embedded::Collector;
use sha2::Sha256;

use crate::config::Env;

/// A webhook's signature was missing or wrong.
pub const SIGNATURE_FAILURES: &str = "SignatureFailures";
/// A bearer token or Standard Webhooks signature was missing or wrong.
pub const TOKEN_FAILURES: &str = "TokenFailures";
/// A correctly signed payload, or one item of it, that was not understood and is kept.
pub const QUARANTINED: &str = "Quarantined";
/// A person was tied to a user.
pub const LINKS: &str = "Links";
/// A link token that did not link: expired, foreign, malformed.
pub const LINK_FAILURES: &str = "LinkFailures";
/// Samples that the app dashboard sent.
pub const DASHBOARD_TESTS: &str = "DashboardTests";
/// Contacts seen for the first time.
pub const CONTACTS_CREATED: &str = "ContactsCreated";
/// Outbox items that were settled.
pub const OUTBOX_DONE: &str = "OutboxDone";
/// Messages that Meta has taken.
pub const MESSENGER_SENDS: &str = "MessengerSends";
/// Messages that were refused, by us or by Meta.
pub const MESSENGER_SEND_FAILURES: &str = "MessengerSendFailures";
/// Outbox items that will be tried again.
pub const OUTBOX_RETRIED: &str = "OutboxRetried";
/// Outbox items that were given up.
pub const OUTBOX_DEAD: &str = "OutboxDead";
/// Braze said 401, 403 or 404, or Graph refused a token or the app's secret: somebody must change a setting or a
/// secret.
pub const CONFIGURATION_FAULTS: &str = "ConfigurationFaults";
/// Stored items that this version cannot read, and leaves alone.
pub const UNREADABLE_ITEMS: &str = "UnreadableItems";
/// Times that a secret was found to have no good value: malformed, deleted, or not for us to read.
pub const SECRETS_UNREADABLE: &str = "SecretsUnreadable";
/// Age of the oldest due outbox item, in seconds.
pub const OLDEST_DUE_SECONDS: &str = "OldestDueSeconds";
/// For how long something pending has been failing, in seconds: the longest time of all items of a lane.
pub const FAILING_SECONDS: &str = "FailingSeconds";
/// Removals of businesses that are not installed, or that name another Business Manager: nothing was changed.
pub const FBE_FOREIGN_REMOVALS: &str = "FbeForeignRemovals";
/// A business is claimed by another Business Manager than its owner, or belongs to another one now.
pub const FBE_MANAGER_CHANGES: &str = "FbeManagerChanges";
/// Installs that Graph does not know although no removal was announced.
pub const FBE_UNKNOWN_AT_GRAPH: &str = "FbeUnknownAtGraph";
/// Pixels that more than one business claims.
pub const PIXEL_CONFLICTS: &str = "PixelConflicts";
/// Items of catalogs that did not get there: broken in the feed, or refused by Meta.
pub const CATALOG_ITEMS_FAILED: &str = "CatalogItemsFailed";
/// Differences between an install as stored and as Graph tells it.
pub const GRAPH_DRIFT: &str = "GraphDrift";

/// Attempts at erasures that were asked for more than a day ago.
pub const ERASURES_LATE: &str = "ErasuresLate";
/// People and pages that removed the app at Meta.
pub const DEAUTHORIZATIONS: &str = "Deauthorizations";

/// Pages that were found not to send their events to the app, four times a day.
pub const PAGES_UNSUBSCRIBED: &str = "PagesUnsubscribed";
/// Days until the first of the pages' tokens ends; 0 for a dead one.
pub const TOKEN_DAYS_LEFT: &str = "TokenDaysLeft";

/// WhatsApp messages that Braze forwarded, ignored keywords included.
pub const MESSAGES_RECEIVED: &str = "MessagesReceived";
/// Messages that an external system took without an answer: it comes later, or never.
pub const ANSWERS_AWAITED: &str = "AnswersAwaited";
/// Requests to a model that were made once more without tools, pictures or history, since it refused them.
pub const REQUESTS_REDUCED: &str = "RequestsReduced";
/// Attributes in answers that are not for an external system to write.
pub const ATTRIBUTES_REFUSED: &str = "AttributesRefused";

static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();

/// One for a stack, and in none of its logs.
static PSEUDONYM_KEY: OnceLock<String> = OnceLock::new();

/// Sets up logs and metrics; call once, at start. `LOG_LEVEL` (default `INFO`) is for our own lines: libraries
/// log warnings at most, since some write requests out when asked for more. Release builds have nothing below `INFO`.
///
/// Metrics carry no dimension, so that one alarm covers all functions: `METRICS_NAMESPACE` (default
/// `MetaBrazeBridge`) sets stacks apart, and the log line names the function.
pub fn init(function: &'static str) {
    let mut env = Env::process();
    let level = env.parsed("LOG_LEVEL", Level::INFO, "a level");
    // Only tests call this twice.
    let _ = PSEUDONYM_KEY.set(env.or("PSEUDONYM_KEY", ""));
    let subscriber = registry().with(filter(function, level));
    let lines = fmt::layer().with_target(false).log_internal_errors(true);
    // Lambda wants level and timestamp in every JSON line, and stamps plain ones itself.
    if env.or("AWS_LAMBDA_LOG_FORMAT", "").eq_ignore_ascii_case("json") {
        subscriber.with(lines.json()).init();
    } else {
        subscriber.with(lines.without_time()).init();
    }
    let collector = metrics_cloudwatch_embedded::Builder::new()
        .cloudwatch_namespace(env.or("METRICS_NAMESPACE", "MetaBrazeBridge"))
        .init();
    match collector {
        Ok(collector) => {
            collector.set_property("Function", function);
            // Only tests call this twice, and the first collector serves them too.
            let _ = COLLECTOR.set(collector);
        }
        Err(error) => tracing::error!(%error, "metrics are off"),
    }
}

fn filter(function: &str, level: Level) -> Targets {
    Targets::new()
        .with_default(level.min(Level::WARN))
        .with_target("shared", level)
        .with_target(function.replace('-', "_"), level)
}

/// Runs one invocation and writes the metrics it recorded: a frozen process writes nothing.
pub async fn measured<T>(invocation: impl Future<Output = T>) -> T {
    let result = invocation.await;
    flush();
    result
}

fn flush() {
    if let Some(collector) = COLLECTOR.get()
        && let Err(error) = collector.flush(std::io::stdout())
    {
        tracing::warn!(%error, "metrics cannot be written");
    }
}

/// A stand-in for an id that names a person, for logs: the same id gives the same stand-in in all functions of a
/// stack. Phone numbers are few enough to try them all, so whoever has a log needs `PSEUDONYM_KEY` too before
/// anything leads back.
#[must_use]
pub fn pseudonym(id: &str) -> String {
    let key = PSEUDONYM_KEY.get().map_or("", String::as_str);
    stand_in(key, id)
}

/// A [`pseudonym`] of 128 bits, by which a table recognizes a person without naming them.
#[must_use]
pub fn keyed_hash(id: &str) -> String {
    let key = PSEUDONYM_KEY.get().map_or("", String::as_str);
    keyed_hash_by(key, id)
}

/// [`keyed_hash`] by the key of a stack that is not ours.
#[must_use]
pub fn keyed_hash_by(key: &str, id: &str) -> String {
    hex::encode(keyed(key, id).first_chunk::<16>().copied().unwrap_or_default())
}

fn stand_in(key: &str, id: &str) -> String {
    hex::encode(keyed(key, id).first_chunk::<6>().copied().unwrap_or_default())
}

fn keyed(key: &str, id: &str) -> Vec<u8> {
    // HMAC takes a key of any length, so there is no error to show.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key.as_bytes()) else {
        return Vec::new();
    };
    mac.update(id.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stand_in_is_the_same_for_the_same_person_and_stack_only() {
        let number = "+15551234567";
        assert_eq!(stand_in("stack", number), stand_in("stack", number));
        assert_ne!(stand_in("stack", number), stand_in("stack", "+15551234568"));
        assert_ne!(stand_in("stack", number), stand_in("another", number));
        assert_eq!(stand_in("stack", number).len(), 12);
    }

    #[test]
    fn libraries_never_log_more_than_warnings() {
        let highest = |level, target| {
            let filter = filter("outbox-dispatch", level);
            let levels = [Level::TRACE, Level::DEBUG, Level::INFO, Level::WARN, Level::ERROR];
            levels
                .into_iter()
                .find(|level| filter.would_enable(target, level))
        };
        for level in [Level::TRACE, Level::INFO, Level::WARN, Level::ERROR] {
            assert_eq!(highest(level, "shared::outbox"), Some(level));
            assert_eq!(highest(level, "outbox_dispatch"), Some(level));
            assert_eq!(highest(level, "hyper::client"), Some(level.min(Level::WARN)));
        }
    }
}
