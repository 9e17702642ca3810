//! The stack that `bridge setup` and `bridge doctor` work on: its addresses, settings, secrets and tables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use anyhow::{Context as _, bail};
use aws_config::SdkConfig;
use serde_json::Value;
use shared::clients::graph::{GraphClient, GraphSettings};
use shared::clients::http;
use shared::clock::Clock;
use shared::config::Env;
use shared::health::HealthSettings;
use shared::json;
use testkit::template::{Deployment, Template};

use crate::functions::{self, Wiring};
use crate::output::usage;
use crate::probe::Urls;
use crate::secrets::{self, STACK_NAME, SecretArgs, Secrets};
use crate::stack::TEMPLATE;

/// Graph answers in seconds; a subscription waits for a function that starts.
const GRAPH_TIMEOUT: Duration = Duration::from_secs(40);

/// Which stack it is.
#[derive(Debug, clap::Args)]
pub(crate) struct TargetArgs {
    #[command(flatten)]
    pub(crate) secrets: SecretArgs,

    /// Base URL of the API [default: that of the stack]
    #[arg(long, env = "BRIDGE_URL")]
    pub(crate) url: Option<url::Url>,

    /// The Graph API [default: the stack's setting]
    #[arg(long, value_name = "URL", env = "GRAPH_API_URL")]
    pub(crate) graph_url: Option<url::Url>,

    /// Braze's REST endpoint [default: the stack's setting]
    #[arg(long, value_name = "URL")]
    pub(crate) braze_endpoint: Option<url::Url>,

    /// The external system [default: the stack's setting]
    #[arg(long, value_name = "URL")]
    pub(crate) external_system_url: Option<url::Url>,
}

/// A stack.
pub(crate) struct Target {
    /// `local`, or the deployed stack's name.
    pub(crate) name: String,
    pub(crate) is_local: bool,
    pub(crate) urls: Urls,
    pub(crate) secrets: Secrets,
    /// AWS, if it can be reached: the local stack may be known by a file of secrets alone.
    pub(crate) aws: Option<SdkConfig>,
    /// The settings by environment variable, as far as they are not the template's defaults.
    settings: BTreeMap<String, String>,
    /// What the stack was deployed with.
    template: Template,
    /// Of a deployed stack.
    outputs: BTreeMap<String, String>,
}

impl TargetArgs {
    /// The flags that name this stack, for a command to paste.
    pub(crate) fn flags(&self) -> String {
        let mut flags = String::new();
        if let Some(stack) = self.secrets.stack() {
            write!(flags, " --stack {stack}").unwrap_or_default();
        } else if self.secrets.aws_addr().port() != 4000 {
            write!(flags, " --aws-addr {}", self.secrets.aws_addr()).unwrap_or_default();
        }
        flags
    }

    /// Finds the stack. Its outputs and settings are read, secrets are not.
    pub(crate) async fn open(&self) -> anyhow::Result<Target> {
        match self.secrets.stack() {
            Some(stack) => self.deployed(stack).await,
            None => self.local().await,
        }
    }

    async fn deployed(&self, stack: &str) -> anyhow::Result<Target> {
        let aws = shared::clients::aws::of_person().await;
        let (outputs, parameters) = secrets::stack_particulars(&aws, stack).await?;
        if outputs.is_empty() {
            bail!("the stack {stack} has no outputs; is it deployed?");
        }
        let known = Template::parse(TEMPLATE)?;
        let is_known = |name: &String| known.source().pointer(&format!("/Parameters/{name}")).is_some();
        let deployment = Deployment {
            stack_name: stack.to_owned(),
            parameters: parameters
                .into_iter()
                .filter(|(name, _)| is_known(name))
                .collect(),
        };
        let urls = match &self.url {
            Some(base) => Urls::below(base),
            None => Urls::of(&outputs)?,
        };
        Ok(Target {
            name: stack.to_owned(),
            is_local: false,
            urls,
            secrets: self.secrets.open().await?,
            aws: Some(aws),
            settings: self.overridden(BTreeMap::new()),
            template: Template::parse_deployed(TEMPLATE, &deployment)?,
            outputs,
        })
    }

    async fn local(&self) -> anyhow::Result<Target> {
        let aws = self.secrets.local().await;
        if aws.is_none() && !self.secrets.is_file() {
            bail!(
                "no local stack answers at {}; is `bridge local` running? (for a deployed one: --stack)",
                self.secrets.aws_addr()
            );
        }
        let published = match &aws {
            Some(aws) => published(aws).await,
            None => Value::Null,
        };
        let url = published
            .get("url")
            .and_then(Value::as_str)
            .unwrap_or("http://127.0.0.1:3000");
        let base = match &self.url {
            Some(base) => base.clone(),
            None => url.parse().context("the local stack's URL is none")?,
        };
        let settings = published.get("settings").and_then(Value::as_object);
        let settings = settings.into_iter().flatten();
        let settings = settings.filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())));
        Ok(Target {
            name: STACK_NAME.to_owned(),
            is_local: true,
            urls: Urls::below(&base),
            secrets: self.secrets.open().await?,
            aws,
            settings: self.overridden(settings.collect()),
            template: Template::parse(TEMPLATE)?,
            outputs: BTreeMap::new(),
        })
    }

    fn overridden(&self, mut settings: BTreeMap<String, String>) -> BTreeMap<String, String> {
        for (name, url) in [
            ("GRAPH_API_URL", &self.graph_url),
            ("BRAZE_REST_ENDPOINT", &self.braze_endpoint),
        ] {
            if let Some(url) = url {
                settings.insert(name.to_owned(), url.as_str().trim_end_matches('/').to_owned());
            }
        }
        if let Some(url) = &self.external_system_url {
            settings.insert("EXTERNAL_SYSTEM_URL".to_owned(), url.to_string());
        }
        settings
    }
}

/// What the local stack says of itself; an older one says nothing.
async fn published(aws: &SdkConfig) -> Value {
    let client = aws_sdk_secretsmanager::Client::new(aws);
    let text = secrets::fetch(&client, secrets::OUTPUTS)
        .await
        .unwrap_or_default();
    json::read(text.as_bytes()).unwrap_or_default()
}

impl Target {
    /// A setting of the functions; `None` if it is empty or no function has it.
    pub(crate) fn setting(&self, name: &str) -> Option<String> {
        let functions = self.template.functions().iter();
        let deployed = || {
            functions
                .clone()
                .find_map(|function| function.environment.get(name).cloned())
        };
        let value = self.settings.get(name).cloned().or_else(deployed);
        value.filter(|value| !value.trim().is_empty())
    }

    /// Every problem of the functions' settings.
    pub(crate) fn problems(&self, clock: &Clock) -> Vec<String> {
        // Nothing is called: a function is only made.
        let nowhere = testkit::aws::sdk_config("http://127.0.0.1:9");
        let mut problems = Vec::new();
        for function in self.template.functions() {
            let mut environment = function.environment.clone();
            environment.extend(self.settings.clone());
            let wiring = Wiring {
                function,
                environment: &environment,
                aws: &nowhere,
                clock,
            };
            if let Err(error) = functions::make(&wiring) {
                let lines = error.to_string();
                problems.extend(
                    lines
                        .lines()
                        .skip(1)
                        .map(|line| line.trim_start_matches([' ', '-']).to_owned()),
                );
            }
        }
        problems.sort();
        problems.dedup();
        problems
    }

    /// The fields that are wanted, and whether they are subscribed again.
    pub(crate) fn health(&self) -> anyhow::Result<HealthSettings> {
        Ok(Env::new(|name| self.setting(name)).finish(HealthSettings::read)?)
    }

    /// Where Graph is.
    ///
    /// # Errors
    ///
    /// On this machine Meta's own is never guessed.
    pub(crate) fn graph_settings(&self) -> anyhow::Result<GraphSettings> {
        if self.is_local && !self.settings.contains_key("GRAPH_API_URL") {
            return Err(usage(
                "say --graph-url: `bridge local` prints where its fake Graph is",
            ));
        }
        Ok(Env::new(|name| self.setting(name)).finish(GraphSettings::read)?)
    }

    /// Speaks to Graph.
    pub(crate) fn graph(&self) -> anyhow::Result<GraphClient> {
        Ok(GraphClient::new(
            http::client(GRAPH_TIMEOUT),
            &self.graph_settings()?,
        ))
    }

    /// Whether the API has a route of this path.
    pub(crate) fn has_route(&self, path: &str) -> bool {
        let mut routes = self
            .template
            .functions()
            .iter()
            .flat_map(|function| &function.routes);
        routes.any(|route| route.path == path)
    }

    /// The name of a table, by its logical id.
    pub(crate) fn table(&self, logical_id: &str) -> anyhow::Result<String> {
        if self.is_local {
            return Ok(format!("{STACK_NAME}-{logical_id}"));
        }
        let output = format!("{logical_id}Name");
        let name = self.outputs.get(&output).cloned();
        name.with_context(|| format!("the stack {} has no output {output}", self.name))
    }
}
