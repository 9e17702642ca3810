//! Logs and metrics.
//!
//! Logs are JSON lines when Lambda says so (`AWS_LAMBDA_LOG_FORMAT`). A message reads on its own *and* carries
//! fields. `error` is used only where somebody must act, and a failure is logged once, where it is handled.
//! Secrets, PSIDs, phone numbers and message text appear in none.
//!
//! Metrics go to standard output in CloudWatch's embedded format, once per invocation. Nothing is recorded
//! where no recorder is set (the local stack, tests).

use std::sync::OnceLock;

use metrics_cloudwatch_embedded::Collector;

use crate::config::Env;
use crate::secrets::SecretError;
use crate::webhook::{Answer, ErrorCode};

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
/// Contacts seen for the first time.
pub const CONTACTS_CREATED: &str = "ContactsCreated";
/// Outbox items that were settled.
pub const OUTBOX_DONE: &str = "OutboxDone";
/// Outbox items that will be tried again.
pub const OUTBOX_RETRIED: &str = "OutboxRetried";
/// Outbox items that were given up.
pub const OUTBOX_DEAD: &str = "OutboxDead";
/// Braze said 401, 403 or 404, or Graph 190: somebody must change a setting or a secret.
pub const CONFIGURATION_FAULTS: &str = "ConfigurationFaults";
/// Age of the oldest due outbox item, in seconds.
pub const OLDEST_DUE_SECONDS: &str = "OldestDueSeconds";
/// Differences between an install as stored and as Graph tells it.
pub const GRAPH_DRIFT: &str = "GraphDrift";

static COLLECTOR: OnceLock<&'static Collector> = OnceLock::new();

/// Sets up logs and metrics; call once, at start. `function` becomes the only dimension, so that the number
/// of metrics stays small. `METRICS_NAMESPACE` defaults to `MetaBrazeBridge`.
pub fn init(function: &'static str) {
    lambda_runtime::tracing::init_default_subscriber();
    let collector = metrics_cloudwatch_embedded::Builder::new()
        .cloudwatch_namespace(Env::process().or("METRICS_NAMESPACE", "MetaBrazeBridge"))
        .with_dimension("Function", function)
        .init();
    match collector {
        Ok(collector) => drop(COLLECTOR.set(collector)),
        Err(error) => tracing::error!(%error, "metrics are off"),
    }
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

/// Logs why secrets cannot be had, and makes the 503 for it.
pub fn secrets_unavailable(error: &SecretError) -> Answer {
    tracing::error!(%error, "secrets are unavailable");
    ErrorCode::SecretsUnavailable.answer()
}

/// A stand-in for an id that names a person, for logs: the same id gives the same stand-in, and nothing leads
/// back.
#[must_use]
pub fn pseudonym(id: &str) -> String {
    use sha2::{Digest, Sha256};
    let digest = Sha256::digest(id);
    hex::encode(digest.first_chunk::<6>().copied().unwrap_or_default())
}
