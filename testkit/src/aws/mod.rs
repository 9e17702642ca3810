//! DynamoDB, its streams, Secrets Manager and SQS, embedded: one HTTP endpoint that speaks AWS's own protocol.
//!
//! The functions, the AWS CLI, `sam local invoke` and tests all talk to it through ordinary AWS clients, so
//! there is no second implementation of a store. DynamoDB is [dynoxide](https://docs.rs/dynoxide-rs) on
//! `SQLite`, Secrets Manager and SQS are [winterbaume](https://docs.rs/winterbaume-core). Any region and any
//! credentials are accepted, and all of them see the same tables and secrets.

mod database;
mod ledger;
mod power;
mod queues;
mod secrets;
mod server;
mod tables;
mod units;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use aws_config::retry::RetryConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::Credentials;
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_sdk_sqs::error::DisplayErrorContext;
use futures_util::future::BoxFuture;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use ledger::{Calls, Fault};
pub use units::Units;

use crate::template::{Power, REGION, Template};
use ledger::{Ledger, Service};

/// Where the embedded AWS listens and what it keeps.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where to listen; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where tables and secrets are kept. `None` = in memory, gone at the end.
    pub data_dir: Option<PathBuf>,
    /// Whether items are removed once they have expired by the machine's clock. A test's clock shows another time.
    pub expiry: bool,
}

impl Default for Options {
    /// A free port of the loopback interface, in memory, and nothing expires.
    fn default() -> Self {
        Self {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: None,
            expiry: false,
        }
    }
}

/// The embedded AWS. It stops when this is dropped.
pub struct EmbeddedAws {
    address: SocketAddr,
    ledger: Arc<Ledger>,
    stop: CancellationToken,
    // A runtime of its own: SQLite blocks its thread, and that must not hold up the function under test.
    runtime: Option<tokio::runtime::Runtime>,
    _lock: Option<File>,
}

impl EmbeddedAws {
    /// Starts it; it answers when this returns.
    ///
    /// # Errors
    ///
    /// When the address is taken, when another process uses the data directory, or when the directory
    /// cannot be read and written.
    pub async fn start(options: Options) -> anyhow::Result<Self> {
        let lock = options.data_dir.as_deref().map(lock).transpose()?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("embedded-aws")
            .enable_all()
            .build()
            .context("no threads for the embedded AWS")?;
        let ledger = Arc::new(Ledger::default());
        let stop = CancellationToken::new();
        let started = runtime.spawn(serve(options, ledger.clone(), stop.clone())).await;
        let mut aws = Self {
            address: SocketAddr::from(([0, 0, 0, 0], 0)),
            ledger,
            stop,
            runtime: Some(runtime),
            _lock: lock,
        };
        aws.address = started.context("the embedded AWS did not start")??;
        Ok(aws)
    }

    /// In memory, on a free port: what most tests want.
    pub async fn in_memory() -> anyhow::Result<Self> {
        Self::start(Options::default()).await
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, for `--endpoint-url` and `AWS_ENDPOINT_URL`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// A configuration for any AWS client: this endpoint, [`REGION`], and credentials that mean nothing.
    #[must_use]
    pub fn sdk_config(&self) -> SdkConfig {
        sdk_config(&self.endpoint_url())
    }

    /// The same for one of several callers, who are told apart by their access key id: letters and digits.
    #[must_use]
    pub fn sdk_config_of(&self, caller: &str) -> SdkConfig {
        config_with(&self.endpoint_url(), caller)
    }

    /// What a caller's role would have had to allow for the requests it made so far. Not reset with the counts.
    #[must_use]
    pub fn powers_of(&self, caller: &str) -> BTreeSet<Power> {
        self.ledger.powers_of(caller)
    }

    /// A DynamoDB client.
    #[must_use]
    pub fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::new(&self.sdk_config())
    }

    /// A DynamoDB Streams client.
    #[must_use]
    pub fn streams(&self) -> aws_sdk_dynamodbstreams::Client {
        aws_sdk_dynamodbstreams::Client::new(&self.sdk_config())
    }

    /// A Secrets Manager client.
    #[must_use]
    pub fn secrets_manager(&self) -> aws_sdk_secretsmanager::Client {
        aws_sdk_secretsmanager::Client::new(&self.sdk_config())
    }

    /// An SQS client.
    #[must_use]
    pub fn sqs(&self) -> aws_sdk_sqs::Client {
        aws_sdk_sqs::Client::new(&self.sdk_config())
    }

    /// Creates the queues of a template as it declares them, and gives their URLs by logical id.
    ///
    /// # Errors
    ///
    /// When SQS refuses a queue.
    pub async fn create_queues(&self, template: &Template) -> anyhow::Result<BTreeMap<String, String>> {
        let client = self.sqs();
        let mut urls = BTreeMap::new();
        for queue in template.queues() {
            let mut request = client.create_queue().queue_name(&queue.name);
            for (name, value) in &queue.attributes {
                request = request.attributes(name.as_str().into(), value);
            }
            let created = request.send().await;
            let created = created.map_err(|error| anyhow::anyhow!("{}", DisplayErrorContext(error)));
            let created = created.with_context(|| format!("the queue {} was not created", queue.name))?;
            let url = created.queue_url.context("the queue has no URL")?;
            urls.insert(queue.logical_id.clone(), url);
        }
        self.reset_calls();
        Ok(urls)
    }

    /// Creates the tables of a template as it declares them. A table that exists already is left alone.
    ///
    /// # Errors
    ///
    /// When a table exists with other keys or indexes than the template's, which an old data directory can
    /// cause, or when DynamoDB refuses a table.
    pub async fn create_tables(&self, template: &Template) -> anyhow::Result<()> {
        let client = self.dynamodb();
        for table in template.tables() {
            tables::create(&client, table).await?;
        }
        // Setting up is not what a test counts.
        self.reset_calls();
        Ok(())
    }

    /// Writes a secret, as a new one or a new version. `name` is created if it does not exist.
    pub async fn put_secret(&self, name: &str, value: &Value) -> anyhow::Result<()> {
        let client = self.secrets_manager();
        let value = value.to_string();
        let created = client
            .create_secret()
            .name(name)
            .secret_string(&value)
            .send()
            .await;
        match created.map_err(aws_sdk_secretsmanager::Error::from) {
            Ok(_) => Ok(()),
            Err(aws_sdk_secretsmanager::Error::ResourceExistsException(_)) => {
                client
                    .put_secret_value()
                    .secret_id(name)
                    .secret_string(value)
                    .send()
                    .await?;
                Ok(())
            }
            Err(error) => Err(error).with_context(|| format!("the secret {name} was not written")),
        }
    }

    /// The requests to DynamoDB since the start or the last [`EmbeddedAws::reset_calls`]. The SDK's own
    /// retries count: a request is a round trip. Reads of streams are not among them.
    #[must_use]
    pub fn dynamodb_calls(&self) -> Calls {
        self.ledger.calls(Service::DynamoDb)
    }

    /// What those requests are billed by.
    #[must_use]
    pub fn dynamodb_units(&self) -> Units {
        self.ledger.units()
    }

    /// How long all requests to DynamoDB took since the start, as seen from here.
    #[must_use]
    pub fn dynamodb_time(&self) -> Duration {
        self.ledger.dynamodb_time()
    }

    /// The requests to Secrets Manager, counted likewise.
    #[must_use]
    pub fn secrets_manager_calls(&self) -> Calls {
        self.ledger.calls(Service::SecretsManager)
    }

    /// The requests to SQS, counted likewise.
    #[must_use]
    pub fn sqs_calls(&self) -> Calls {
        self.ledger.calls(Service::Sqs)
    }

    /// Counts from zero.
    pub fn reset_calls(&self) {
        self.ledger.reset_calls();
    }

    /// Lets the next `times` requests of `operation` (such as `UpdateItem` or `GetSecretValue`; `*` is any)
    /// meet a fault. An SDK client sends a request up to three times, so one fault is usually survived.
    pub fn fail_next(&self, operation: &str, times: usize, fault: Fault) {
        self.ledger.fail_next(operation, times, fault);
    }

    /// Forgets the faults that have not happened yet, and says how many those were; and what was to happen before calls.
    pub fn clear_faults(&self) -> usize {
        self.ledger.clear_faults()
    }

    /// Runs `hook` with the request's body just before the next request of `operation` is carried out, to
    /// put another writer between a read and its write. The hook may use this AWS itself.
    pub fn before_next(
        &self,
        operation: &str,
        hook: impl FnOnce(Value) -> BoxFuture<'static, ()> + Send + 'static,
    ) {
        self.ledger.before_next(operation, Box::new(hook));
    }

    /// Stops answering and closes the files. Dropping it does the same without waiting.
    pub async fn stop(mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            // Blocks until the connections are done, for which a runtime's worker is the wrong place.
            let stopped =
                tokio::task::spawn_blocking(move || runtime.shutdown_timeout(Duration::from_secs(2)));
            if stopped.await.is_err() {
                tracing::warn!("the embedded AWS did not stop cleanly");
            }
        }
    }
}

impl Drop for EmbeddedAws {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A configuration for AWS clients of an embedded AWS at `endpoint_url`, in this process or another.
#[must_use]
pub fn sdk_config(endpoint_url: &str) -> SdkConfig {
    config_with(endpoint_url, "embedded")
}

fn config_with(endpoint_url: &str, access_key_id: &str) -> SdkConfig {
    let credentials = Credentials::new(access_key_id, "embedded", None, None, "embedded");
    SdkConfig::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::from_static(REGION))
        .endpoint_url(endpoint_url)
        .credentials_provider(SharedCredentialsProvider::new(credentials))
        // The endpoint has no TLS, and loading the system's certificates would be most of a test's start.
        .http_client(aws_smithy_http_client::Builder::new().build_http())
        // As many tries as by default, without its second of backoff.
        .retry_config(RetryConfig::standard().with_initial_backoff(Duration::from_millis(10)))
        .build()
}

async fn serve(options: Options, ledger: Arc<Ledger>, stop: CancellationToken) -> anyhow::Result<SocketAddr> {
    let database = database::open(options.data_dir.as_deref())?;
    let secrets = secrets::SecretsManager::open(options.data_dir.as_deref()).await?;

    let listener = TcpListener::bind(options.address)
        .await
        .with_context(|| format!("cannot listen on {}", options.address))?;
    let address = listener.local_addr()?;
    // dynoxide serves sockets only, so it gets one of its own behind ours.
    let behind = TcpListener::bind(("127.0.0.1", 0)).await?;
    let dynamodb = behind.local_addr()?;

    tokio::spawn(dynoxide::server::serve_with_shutdown(
        behind,
        database.clone(),
        stop.clone().cancelled_owned(),
    ));
    if options.expiry {
        tokio::spawn(sweep(database, stop.clone()));
    }
    tokio::spawn(server::serve(listener, dynamodb, secrets, ledger, stop));
    Ok(address)
}

/// Removes expired items now and then. DynamoDB too is late with it, so nothing may rely on the moment.
async fn sweep(database: dynoxide::Database, stop: CancellationToken) {
    let mut ticks = tokio::time::interval(Duration::from_mins(1));
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        if let Err(error) = database.sweep_ttl() {
            tracing::warn!(%error, "expired items were not removed");
        }
    }
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    std::fs::create_dir_all(data_dir).with_context(|| format!("cannot create {}", data_dir.display()))?;
    let path = data_dir.join("lock");
    let file = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.try_lock()
        .map_err(|_| anyhow::anyhow!("{} is used by another process", data_dir.display()))?;
    Ok(file)
}

#[cfg(test)]
mod tests;
