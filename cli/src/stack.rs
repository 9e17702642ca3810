//! The whole system in one process: the functions of `template.yaml` around an embedded AWS.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use serde_json::{Value, json};
use shared::clock::Clock;
use shared::sdk_error;
use testkit::aws::EmbeddedAws;
use testkit::lambda::{
    Gateway, GatewayRoute, Handler, QueueDriver, QueueSource, ScheduleDriver, ScheduledInvocation,
    StreamDriver, StreamSource,
};
use testkit::template::{Function, Template};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::console::{LocalConsole, Parts};
use crate::fakes::Fakes;
use crate::functions::{self, Wiring};
use crate::meta;
use crate::output::usage;
use crate::payloads::Sender;
use crate::secrets::{self, STACK_NAME};

/// How many conversations are worked on at once.
const MAX_CONCURRENCY: &str = "RELAY_MAX_CONCURRENCY";

pub(crate) const TEMPLATE: &str = include_str!("../../template.yaml");

/// What a local stack is made of.
#[derive(Debug)]
pub struct StackOptions {
    /// Where the HTTP API listens.
    pub http: SocketAddr,
    /// Where the embedded AWS listens.
    pub aws: SocketAddr,
    /// Where tables and secrets are kept; `None` = in memory.
    pub data_dir: Option<PathBuf>,
    /// The secrets by name (`meta`, …); `None` = those that the data directory holds, else the development
    /// values.
    pub secrets: Option<Value>,
    /// Settings of the functions, by the names of their environment. For an address that is missing here a
    /// fake is started.
    pub settings: BTreeMap<String, String>,
    /// How often the schedule fires that the template has fire every minute.
    pub tick: Duration,
    /// How often the outbox's stream is looked at.
    pub poll: Duration,
    /// The time of the functions and the fakes.
    pub clock: Clock,
    /// Whether expired items are removed, by the machine's clock.
    pub expiry: bool,
    /// Whether the console is served beside the functions, and watches them.
    pub console: bool,
}

impl StackOptions {
    /// Free ports of the loopback interface, in memory, development secrets, all fakes, and impatient: for
    /// tests and the demo.
    #[must_use]
    pub fn with_clock(clock: &Clock) -> Self {
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        Self {
            http: anywhere,
            aws: anywhere,
            data_dir: None,
            secrets: None,
            settings: BTreeMap::new(),
            tick: Duration::from_secs(1),
            poll: Duration::from_millis(10),
            clock: clock.clone(),
            expiry: false,
            console: false,
        }
    }
}

/// A local stack, running.
pub struct LocalStack {
    template: Template,
    settings: BTreeMap<String, String>,
    secrets: BTreeMap<String, Value>,
    functions: BTreeMap<String, Handler>,
    fakes: Arc<Fakes>,
    console: Option<String>,
    dynamodb: aws_sdk_dynamodb::Client,
    clock: Clock,
    aws: EmbeddedAws,
    gateway: Gateway,
    streams: Vec<StreamDriver>,
    queues: Vec<QueueDriver>,
    schedules: ScheduleDriver,
    stop: CancellationToken,
}

impl LocalStack {
    /// Starts it; it answers when this returns.
    ///
    /// # Errors
    ///
    /// When a setting is unknown or wrong, all of them in one; when an address is taken or the data directory
    /// cannot be used.
    #[expect(
        clippy::too_many_lines,
        reason = "one after the other, each part of the stack"
    )]
    pub async fn start(options: StackOptions) -> anyhow::Result<Self> {
        let template = Template::parse(TEMPLATE)?;
        check_names(&template, &options.settings)?;
        let aws = EmbeddedAws::start(testkit::aws::Options {
            address: options.aws,
            data_dir: options.data_dir.clone(),
            expiry: options.expiry,
        })
        .await?;
        aws.create_tables(&template).await?;
        let queue_urls = aws.create_queues(&template).await?;
        let secrets = write_secrets(&aws, options.secrets.as_ref()).await?;
        let mut settings = options.settings;
        let fakes = Arc::new(Fakes::start(&secrets, &mut settings, &options.clock).await?);

        let listener = TcpListener::bind(options.http)
            .await
            .with_context(|| format!("cannot listen on {}; try another --port", options.http))?;
        let url = format!("http://{}", listener.local_addr()?);
        publish(&aws, &url, &settings).await?;
        let mut functions = plug(&template, &aws, &url, &settings, &options.clock)?;

        let stop = CancellationToken::new();
        let table = |logical_id: &str| {
            let table = template.table(logical_id);
            Ok(table
                .with_context(|| format!("the template has no {logical_id}"))?
                .name
                .clone())
        };
        let console = options.console.then(|| {
            LocalConsole::new(&Parts {
                name: STACK_NAME,
                dynamodb: aws.dynamodb(),
                table: &table,
                fakes: fakes.clone(),
                secrets: &secrets,
                url: &url,
                port: listener.local_addr()?.port(),
                data_dir: options.data_dir.as_deref(),
                clock: &options.clock,
                stop: &stop,
            })
        });
        let console = console.transpose()?;
        let (mut routes, mut streams, mut schedules) = (Vec::new(), Vec::new(), Vec::new());
        let mut queues = Vec::new();
        for (function, handler) in &mut functions {
            let from_meta = |route: &testkit::template::Route| route.path == Sender::Fbe.path();
            if let Some(graph) = fakes
                .graph
                .clone()
                .filter(|_| function.routes.iter().any(from_meta))
            {
                *handler = meta::learning(handler.clone(), graph);
            }
            let timeout = Some(Duration::from_secs(function.timeout_seconds));
            let behind_api = match &console {
                Some(console) if !function.routes.is_empty() => console.recording(handler.clone()),
                _ => handler.clone(),
            };
            routes.extend(function.routes.iter().map(|route| GatewayRoute {
                method: route.method.clone(),
                path: route.path.clone(),
                handler: behind_api.clone(),
                timeout,
            }));
            for mapping in &function.streams {
                let table = template
                    .table(&mapping.table)
                    .context("a stream of an unknown table")?;
                let mut mapping = mapping.clone();
                // It would make batches fuller and every answer a second later.
                mapping.batching_window_seconds = 0;
                // Lambda goes on where it was. What a process before this one has left, the schedule finds; all that the
                // stream still holds would be done once more with each start.
                "LATEST".clone_into(&mut mapping.starting_position);
                let source = StreamSource {
                    table: table.clone(),
                    mapping,
                    poll: options.poll,
                    handler: handler.clone(),
                    timeout,
                };
                streams.push(StreamDriver::start(aws.streams(), source, stop.clone()).await?);
            }
            for mapping in &function.queues {
                let url = queue_urls.get(&mapping.queue).context("an unknown queue")?;
                let mut mapping = mapping.clone();
                if let Some(limit) = settings.get(MAX_CONCURRENCY) {
                    let limit = limit
                        .parse()
                        .map_err(|_| usage(format!("{MAX_CONCURRENCY} is no number")))?;
                    mapping.maximum_concurrency = Some(limit);
                }
                let source = QueueSource {
                    url: url.clone(),
                    mapping,
                    handler: handler.clone(),
                    timeout,
                };
                queues.push(QueueDriver::start(aws.sqs(), source, stop.clone()));
            }
            for schedule in &function.schedules {
                let input = schedule.input.as_deref().map(serde_json::from_str).transpose()?;
                schedules.push(ScheduledInvocation {
                    name: function.logical_id.clone(),
                    every: period(&schedule.expression, options.tick)?,
                    input,
                    handler: handler.clone(),
                    timeout,
                });
            }
        }
        let schedules = ScheduleDriver::start(schedules, &options.clock, &stop);
        let beside = console.as_ref().map(LocalConsole::router).unwrap_or_default();
        let gateway = Gateway::serve_beside(listener, routes, beside, options.clock.clone(), stop.clone())?;
        if let Some(console) = &console {
            console.follow();
        }
        let functions = functions
            .into_iter()
            .map(|(function, handler)| (function.logical_id.clone(), handler))
            .collect();
        Ok(Self {
            console: console.map(|console| console.address),
            dynamodb: aws.dynamodb(),
            clock: options.clock,
            functions,
            template,
            settings,
            secrets,
            fakes,
            aws,
            gateway,
            streams,
            queues,
            schedules,
            stop,
        })
    }

    /// The base URL of the HTTP API.
    #[must_use]
    pub fn url(&self) -> String {
        self.gateway.url()
    }

    /// The address that opens the console, if it is served.
    #[must_use]
    pub fn console(&self) -> Option<&str> {
        self.console.as_deref()
    }

    /// The functions' time.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The embedded AWS.
    #[must_use]
    pub fn aws(&self) -> &EmbeddedAws {
        &self.aws
    }

    /// Braze and the others, as far as they are played.
    #[must_use]
    pub fn fakes(&self) -> &Fakes {
        &self.fakes
    }

    /// The template that the stack was made of.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The settings that differ from the template's, with the addresses of the fakes.
    #[must_use]
    pub fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// The secrets in force, by name.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<String, Value> {
        &self.secrets
    }

    /// A function by its logical id, to be invoked directly.
    #[must_use]
    pub fn function(&self, logical_id: &str) -> Option<&Handler> {
        self.functions.get(logical_id)
    }

    pub(crate) fn dynamodb(&self) -> &aws_sdk_dynamodb::Client {
        &self.dynamodb
    }

    /// Stops taking requests, finishes what is in hand, and closes the files.
    pub async fn stop(self) {
        self.stop.cancel();
        self.gateway.stopped().await;
        for stream in self.streams {
            stream.stopped().await;
        }
        for queue in self.queues {
            queue.stopped().await;
        }
        self.schedules.stopped().await;
        self.aws.stop().await;
    }
}

/// A misspelt setting would otherwise do nothing, silently.
fn check_names(template: &Template, settings: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let known = |name: &String| {
        // A variable whose parameter has no default is in no environment.
        name == "BRAZE_REST_ENDPOINT"
            // In AWS the event source has it.
            || name == MAX_CONCURRENCY
            || template
                .functions()
                .iter()
                .any(|function| function.environment.contains_key(name))
    };
    match settings.keys().find(|name| !known(name)) {
        Some(name) => Err(usage(format!("no function has a setting {name}"))),
        None => Ok(()),
    }
}

/// Makes every function, or tells everything that is wrong with the settings.
fn plug<'a>(
    template: &'a Template,
    aws: &EmbeddedAws,
    url: &str,
    settings: &BTreeMap<String, String>,
    clock: &Clock,
) -> anyhow::Result<Vec<(&'a Function, Handler)>> {
    let config = aws.sdk_config();
    let (mut plugged, mut problems) = (Vec::new(), Vec::new());
    for function in template.functions() {
        let mut environment = function.environment.clone();
        if environment.contains_key("REPLY_URL") {
            environment.insert("REPLY_URL".to_owned(), format!("{url}/whatsapp/reply"));
        }
        environment.extend(settings.clone());
        let wiring = Wiring {
            function,
            environment: &environment,
            aws: &config,
            clock,
        };
        match functions::make(&wiring) {
            Ok(Some(handler)) => plugged.push((function, handler)),
            Ok(None) => tracing::warn!(function = %function.binary, "the function is not part of this build"),
            Err(error) => problems.push(format!("{}: {error}", function.logical_id)),
        }
    }
    if problems.is_empty() {
        Ok(plugged)
    } else {
        Err(usage(problems.join("\n")))
    }
}

/// Tells other commands what CloudFormation would tell of a deployed stack.
async fn publish(aws: &EmbeddedAws, url: &str, settings: &BTreeMap<String, String>) -> anyhow::Result<()> {
    aws.put_secret(secrets::OUTPUTS, &json!({"url": url, "settings": settings}))
        .await?;
    aws.reset_calls();
    Ok(())
}

/// Given secrets replace what is there; development secrets only fill what is missing.
/// The result is what is in force.
async fn write_secrets(aws: &EmbeddedAws, given: Option<&Value>) -> anyhow::Result<BTreeMap<String, Value>> {
    let mut in_force = BTreeMap::new();
    let development = secrets::development();
    let values = given
        .unwrap_or(&development)
        .as_object()
        .context("the secrets are not an object")?;
    let client = aws.secrets_manager();
    for (name, value) in values {
        let id = format!("{STACK_NAME}/{name}");
        if given.is_none() {
            match client.get_secret_value().secret_id(&id).send().await {
                Ok(known) => {
                    // What is no JSON is met again, and named, by who reads it.
                    let known = known.secret_string().unwrap_or_default();
                    in_force.insert(name.clone(), serde_json::from_str(known).unwrap_or_default());
                    continue;
                }
                Err(error)
                    if error
                        .as_service_error()
                        .is_some_and(GetSecretValueError::is_resource_not_found_exception) => {}
                Err(error) => bail!(
                    "the secret {id} cannot be looked up: {}",
                    sdk_error::reason(&error)
                ),
            }
        }
        aws.put_secret(&id, value).await?;
        in_force.insert(name.clone(), value.clone());
    }
    aws.reset_calls();
    Ok(in_force)
}

/// The period of `rate(…)`; a minute, EventBridge's shortest, becomes the tick.
fn period(expression: &str, tick: Duration) -> anyhow::Result<Duration> {
    let rate = expression
        .strip_prefix("rate(")
        .and_then(|rate| rate.strip_suffix(')'));
    let (number, unit) = rate
        .and_then(|rate| rate.split_once(' '))
        .context("a schedule is no rate(…)")?;
    let number: u64 = number.parse().context("a schedule's rate is no number")?;
    Ok(match unit.trim_end_matches('s') {
        "minute" if number == 1 => tick,
        "minute" => Duration::from_mins(number),
        "hour" => Duration::from_hours(number),
        "day" => Duration::from_hours(24 * number),
        other => bail!("a schedule counts in {other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn periods() {
        let tick = Duration::from_secs(5);
        assert_eq!(period("rate(1 minute)", tick).unwrap(), tick);
        assert_eq!(period("rate(5 minutes)", tick).unwrap(), Duration::from_mins(5));
        assert_eq!(period("rate(1 day)", tick).unwrap(), Duration::from_hours(24));
        assert!(period("cron(0 3 * * ? *)", tick).is_err());
    }

    #[test]
    fn an_unknown_setting_is_named() {
        let template = Template::parse(TEMPLATE).unwrap();
        let settings = |name: &str| BTreeMap::from([(name.to_owned(), "x".to_owned())]);
        assert!(check_names(&template, &settings("MESSENGER_ID_ATTRIBUTE")).is_ok());
        let error = check_names(&template, &settings("MESENGER_ID")).unwrap_err();
        assert!(error.to_string().contains("MESENGER_ID") && error.is::<crate::output::UsageError>());
    }
}
