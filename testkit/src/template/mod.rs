//! `template.yaml`, read: the tables and functions that the local stack and the tests use are the deployed
//! ones, from the one place that defines them.

mod for_each;
mod grant;
mod intrinsic;
pub mod yaml;

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, bail};
use serde::Deserialize;
use serde_json::Value;

pub use grant::Power;
pub use intrinsic::REGION;
use intrinsic::{Resolver, strings};

/// What is decided at deployment: the name of the stack and its parameters.
#[derive(Debug, Clone)]
pub struct Deployment {
    /// Name of the stack.
    pub stack_name: String,
    /// Parameters, instead of their defaults.
    pub parameters: BTreeMap<String, String>,
}

impl Default for Deployment {
    /// A stack called `local` with every parameter at its default.
    fn default() -> Self {
        Self {
            stack_name: "local".to_owned(),
            parameters: BTreeMap::new(),
        }
    }
}

/// A SAM template under one [`Deployment`].
#[derive(Debug, Clone)]
pub struct Template {
    root: Value,
    deployment: Deployment,
    tables: Vec<Table>,
    functions: Vec<Function>,
    secrets: BTreeMap<String, String>,
    queues: Vec<Queue>,
}

/// An SQS queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Queue {
    /// Its name in the template.
    pub logical_id: String,
    /// Its name in SQS.
    pub name: String,
    /// Its attributes, as SQS names them.
    pub attributes: BTreeMap<String, String>,
}

/// A DynamoDB table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Table {
    /// Its name in the template.
    pub logical_id: String,
    /// Its name in DynamoDB.
    pub name: String,
    /// Partition key and, if any, sort key.
    pub key: Vec<KeyAttribute>,
    /// The type (`S`, `N` or `B`) of every attribute that a key uses.
    pub attribute_types: BTreeMap<String, String>,
    /// Global secondary indexes.
    pub indexes: Vec<Index>,
    /// `NEW_IMAGE` and so on; `None` = no stream.
    pub stream_view: Option<String>,
    /// The attribute by which items expire.
    pub ttl_attribute: Option<String>,
}

/// An attribute of a key.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct KeyAttribute {
    /// Its name.
    #[serde(rename = "AttributeName")]
    pub name: String,
    /// `HASH` for a partition key, `RANGE` for a sort key.
    pub key_type: String,
}

/// A global secondary index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Index {
    /// Its name.
    #[serde(rename = "IndexName")]
    pub name: String,
    /// Partition key and, if any, sort key.
    #[serde(rename = "KeySchema")]
    pub key: Vec<KeyAttribute>,
    /// What an item shows in the index.
    pub projection: Projection,
}

/// What an item shows in an index.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Projection {
    /// `ALL`, `KEYS_ONLY` or `INCLUDE`.
    pub projection_type: String,
    /// The attributes besides the keys, for `INCLUDE`.
    #[serde(default)]
    pub non_key_attributes: Vec<String>,
}

/// A Lambda function.
#[derive(Debug, Clone, PartialEq)]
pub struct Function {
    /// Its name in the template.
    pub logical_id: String,
    /// The binary that `sam build` makes for it (`Metadata.BuildProperties.Binary`).
    pub binary: String,
    /// Its environment as deployed. A variable whose parameter has no default and was not given is missing.
    pub environment: BTreeMap<String, String>,
    /// Memory, in MiB.
    pub memory_mib: u64,
    /// Seconds after which Lambda ends an invocation.
    pub timeout_seconds: u64,
    /// The HTTP routes that invoke it.
    pub routes: Vec<Route>,
    /// The table streams that invoke it.
    pub streams: Vec<Stream>,
    /// The queues that invoke it.
    pub queues: Vec<QueueEvents>,
    /// The schedules that invoke it.
    pub schedules: Vec<Schedule>,
    /// What its role may do, by the role's own policies.
    pub grants: BTreeSet<Power>,
}

/// A route of the HTTP API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// In upper case, or `ANY`.
    pub method: String,
    /// With a leading slash.
    pub path: String,
}

/// A table's stream as an event source.
#[derive(Debug, Clone, PartialEq)]
pub struct Stream {
    /// The table, by its logical id.
    pub table: String,
    /// Most records of one invocation.
    pub batch_size: usize,
    /// How long to wait for a batch to fill.
    pub batching_window_seconds: u64,
    /// Batches of one shard that are worked on side by side; a partition key stays in one of them.
    pub parallelization_factor: usize,
    /// Event patterns as JSON texts; a record has to match one of them, or there is none.
    pub filters: Vec<String>,
    /// `TRIM_HORIZON` or `LATEST`.
    pub starting_position: String,
    /// Whether the function may name the records that failed.
    pub report_batch_item_failures: bool,
    /// Whether a failed batch is halved.
    pub bisect_batch: bool,
    /// Tries after the first; `None` = until the record expires.
    pub maximum_retry_attempts: Option<u32>,
}

/// A queue as an event source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueEvents {
    /// The queue, by its logical id.
    pub queue: String,
    /// Most messages of one invocation.
    pub batch_size: usize,
    /// Most invocations at once; `None` = as many as Lambda allows.
    pub maximum_concurrency: Option<usize>,
    /// Whether the function may name the messages that failed.
    pub report_batch_item_failures: bool,
}

/// A schedule as an event source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    /// Such as `rate(1 minute)`.
    pub expression: String,
    /// The event, instead of the one that `EventBridge` makes.
    pub input: Option<String>,
}

impl Template {
    /// The repository's own `template.yaml`, for tests.
    ///
    /// # Errors
    ///
    /// Those of [`Template::parse`], and when the file is not where this was compiled.
    pub fn of_the_repository() -> anyhow::Result<Self> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../template.yaml");
        Self::parse(&std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?)
    }

    /// Reads a template, deployed as a stack called `local` with every parameter at its default.
    ///
    /// # Errors
    ///
    /// When it is not YAML, when a table or function lacks something, or when a value uses a CloudFormation
    /// function that is not known here.
    pub fn parse(yaml: &str) -> anyhow::Result<Self> {
        Self::parse_deployed(yaml, &Deployment::default())
    }

    /// Reads a template under `deployment`. The errors are those of [`Template::parse`].
    pub fn parse_deployed(yaml: &str, deployment: &Deployment) -> anyhow::Result<Self> {
        let root = for_each::expand(yaml::parse(yaml)?)?;
        let parameters = root.get("Parameters").and_then(Value::as_object);
        for name in deployment.parameters.keys() {
            if parameters.is_none_or(|parameters| !parameters.contains_key(name)) {
                bail!("the template has no parameter {name}");
            }
        }
        let resolver = Resolver::new(&root, deployment);
        let (mut tables, mut functions, mut secrets) = (Vec::new(), Vec::new(), BTreeMap::new());
        let mut queues = Vec::new();
        for (logical_id, resource) in deployed(&root, &resolver)? {
            let mut read = || -> anyhow::Result<()> {
                match kind(resource) {
                    "AWS::DynamoDB::Table" => tables.push(table(&resolver, logical_id, resource)?),
                    "AWS::Serverless::Function" => {
                        functions.push(function(&resolver, &root, logical_id, resource)?);
                    }
                    "AWS::SQS::Queue" => queues.push(queue(&resolver, logical_id, resource)?),
                    "AWS::SecretsManager::Secret" => {
                        let name = resolver.physical_name(logical_id, "Name")?;
                        secrets.insert(logical_id.clone(), name);
                    }
                    _ => {}
                }
                Ok(())
            };
            read().with_context(|| format!("template, resource {logical_id}"))?;
        }
        Ok(Self {
            deployment: deployment.clone(),
            tables,
            functions,
            secrets,
            queues,
            root,
        })
    }

    /// The template as it was read: short forms (`!Ref X`) as long ones, loops expanded, nothing resolved.
    #[must_use]
    pub fn source(&self) -> &Value {
        &self.root
    }

    /// The properties of every deployed resource of a type such as `AWS::SQS::Queue`, resolved, by logical id.
    ///
    /// # Errors
    ///
    /// When a value uses a `CloudFormation` function that is not known here.
    pub fn properties_of(&self, resource_type: &str) -> anyhow::Result<BTreeMap<&str, Value>> {
        let resolver = Resolver::new(&self.root, &self.deployment);
        let mut found = BTreeMap::new();
        for (logical_id, resource) in deployed(&self.root, &resolver)? {
            if kind(resource) == resource_type {
                let properties = resolver.resolve(resource.get("Properties").unwrap_or(&Value::Null));
                let properties = properties.with_context(|| format!("template, resource {logical_id}"))?;
                found.insert(logical_id.as_str(), properties);
            }
        }
        Ok(found)
    }

    /// Every table.
    #[must_use]
    pub fn tables(&self) -> &[Table] {
        &self.tables
    }

    /// The table of this logical id.
    #[must_use]
    pub fn table(&self, logical_id: &str) -> Option<&Table> {
        self.tables.iter().find(|table| table.logical_id == logical_id)
    }

    /// Every queue.
    #[must_use]
    pub fn queues(&self) -> &[Queue] {
        &self.queues
    }

    /// Every function.
    #[must_use]
    pub fn functions(&self) -> &[Function] {
        &self.functions
    }

    /// The function of this logical id.
    #[must_use]
    pub fn function(&self, logical_id: &str) -> Option<&Function> {
        self.functions
            .iter()
            .find(|function| function.logical_id == logical_id)
    }

    /// The names of the secrets, by logical id.
    #[must_use]
    pub fn secrets(&self) -> &BTreeMap<String, String> {
        &self.secrets
    }
}

/// The resources whose condition holds.
fn deployed<'a>(root: &'a Value, resolver: &Resolver<'_>) -> anyhow::Result<Vec<(&'a String, &'a Value)>> {
    let resources = root.get("Resources").and_then(Value::as_object);
    let mut deployed = Vec::new();
    for (logical_id, resource) in resources.context("the template has no Resources")? {
        let condition = resource.get("Condition").and_then(Value::as_str);
        if condition.map_or(Ok(true), |condition| resolver.condition(condition))? {
            deployed.push((logical_id, resource));
        }
    }
    Ok(deployed)
}

fn kind(resource: &Value) -> &str {
    resource.get("Type").and_then(Value::as_str).unwrap_or_default()
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TableProperties {
    key_schema: Vec<KeyAttribute>,
    attribute_definitions: Vec<AttributeDefinition>,
    #[serde(default)]
    global_secondary_indexes: Vec<Index>,
    stream_specification: Option<StreamSpecification>,
    time_to_live_specification: Option<TimeToLive>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct AttributeDefinition {
    attribute_name: String,
    attribute_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct StreamSpecification {
    stream_view_type: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct TimeToLive {
    attribute_name: String,
    enabled: bool,
}

fn table(resolver: &Resolver<'_>, logical_id: &str, resource: &Value) -> anyhow::Result<Table> {
    let properties = resolver.resolve(resource.get("Properties").unwrap_or(&Value::Null))?;
    let properties: TableProperties = serde_json::from_value(properties)?;
    let types = properties.attribute_definitions.into_iter();
    Ok(Table {
        logical_id: logical_id.to_owned(),
        name: resolver.physical_name(logical_id, "TableName")?,
        key: properties.key_schema,
        attribute_types: types
            .map(|one| (one.attribute_name, one.attribute_type))
            .collect(),
        indexes: properties.global_secondary_indexes,
        stream_view: properties
            .stream_specification
            .map(|stream| stream.stream_view_type),
        ttl_attribute: properties
            .time_to_live_specification
            .filter(|ttl| ttl.enabled)
            .map(|ttl| ttl.attribute_name),
    })
}

/// The attributes of queues that mean the same under the same names in CloudFormation and in SQS.
const QUEUE_ATTRIBUTES: [&str; 6] = [
    "DelaySeconds",
    "MaximumMessageSize",
    "MessageRetentionPeriod",
    "ReceiveMessageWaitTimeSeconds",
    "SqsManagedSseEnabled",
    "VisibilityTimeout",
];

fn queue(resolver: &Resolver<'_>, logical_id: &str, resource: &Value) -> anyhow::Result<Queue> {
    let properties = resolver.resolve(resource.get("Properties").unwrap_or(&Value::Null))?;
    let attribute = |name: &&str| {
        let value = match properties.get(*name)? {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        Some(((*name).to_owned(), value))
    };
    Ok(Queue {
        logical_id: logical_id.to_owned(),
        name: resolver.physical_name(logical_id, "QueueName")?,
        attributes: QUEUE_ATTRIBUTES.iter().filter_map(attribute).collect(),
    })
}

fn queue_events(raw: &Value, properties: &Value) -> anyhow::Result<QueueEvents> {
    let queue = raw.pointer("/Queue/Fn::GetAtt/0").and_then(Value::as_str);
    let number = |pointer: &str| properties.pointer(pointer).map(as_number).transpose();
    let responses = properties.get("FunctionResponseTypes").and_then(Value::as_array);
    let maximum = number("/ScalingConfig/MaximumConcurrency")?;
    Ok(QueueEvents {
        queue: queue.context("Queue is no !GetAtt of a queue")?.to_owned(),
        batch_size: usize::try_from(number("/BatchSize")?.unwrap_or(10))?,
        maximum_concurrency: maximum.map(usize::try_from).transpose()?,
        report_batch_item_failures: responses
            .is_some_and(|responses| responses.contains(&Value::from("ReportBatchItemFailures"))),
    })
}

fn function(
    resolver: &Resolver<'_>,
    root: &Value,
    logical_id: &str,
    resource: &Value,
) -> anyhow::Result<Function> {
    let own = resource.get("Properties").unwrap_or(&Value::Null);
    let global = root.pointer("/Globals/Function").unwrap_or(&Value::Null);
    let property = |name: &str| own.get(name).or_else(|| global.get(name));
    let number = |name: &str, default: u64| -> anyhow::Result<u64> {
        let Some(value) = property(name) else {
            return Ok(default);
        };
        as_number(&resolver.resolve(value)?).with_context(|| format!("{name} is not a whole number"))
    };
    let mut environment = BTreeMap::new();
    for properties in [global, own] {
        let variables = properties
            .pointer("/Environment/Variables")
            .unwrap_or(&Value::Null);
        environment.extend(strings(&resolver.resolve(variables)?));
    }
    let binary = resource
        .pointer("/Metadata/BuildProperties/Binary")
        .and_then(Value::as_str);
    let mut function = Function {
        logical_id: logical_id.to_owned(),
        binary: binary
            .context("Metadata.BuildProperties.Binary is missing")?
            .to_owned(),
        environment,
        memory_mib: number("MemorySize", 128)?,
        timeout_seconds: number("Timeout", 3)?,
        routes: Vec::new(),
        streams: Vec::new(),
        queues: Vec::new(),
        schedules: Vec::new(),
        grants: grant::of_role(resolver, root, own.get("Role"))?,
    };
    for (name, event) in own.get("Events").and_then(Value::as_object).into_iter().flatten() {
        add_event(&mut function, resolver, event).with_context(|| format!("event {name}"))?;
    }
    Ok(function)
}

fn add_event(function: &mut Function, resolver: &Resolver<'_>, event: &Value) -> anyhow::Result<()> {
    let raw = event.get("Properties").unwrap_or(&Value::Null);
    let properties = resolver.resolve(raw)?;
    let text = |name: &str| properties.get(name).and_then(Value::as_str).map(str::to_owned);
    match event.get("Type").and_then(Value::as_str).unwrap_or_default() {
        "HttpApi" => function.routes.push(Route {
            method: text("Method").unwrap_or_else(|| "ANY".to_owned()).to_uppercase(),
            path: text("Path").context("Path is missing")?,
        }),
        "DynamoDB" => function.streams.push(stream(raw, &properties)?),
        "SQS" => function.queues.push(queue_events(raw, &properties)?),
        "Schedule" | "ScheduleV2" => {
            // A schedule that a parameter switches off is none.
            let disabled = properties.get("Enabled") == Some(&Value::Bool(false))
                || text("State").is_some_and(|state| state == "DISABLED");
            if !disabled {
                function.schedules.push(Schedule {
                    expression: text("Schedule")
                        .or_else(|| text("ScheduleExpression"))
                        .context("the expression is missing")?,
                    input: text("Input"),
                });
            }
        }
        other => bail!("events of type {other} are not known here"),
    }
    Ok(())
}

fn stream(raw: &Value, properties: &Value) -> anyhow::Result<Stream> {
    let table = raw.pointer("/Stream/Fn::GetAtt/0").and_then(Value::as_str);
    let filters = properties
        .pointer("/FilterCriteria/Filters")
        .and_then(Value::as_array);
    let patterns = filters.into_iter().flatten();
    let patterns = patterns.map(|filter| filter.get("Pattern").and_then(Value::as_str).map(str::to_owned));
    let types = properties.get("FunctionResponseTypes").and_then(Value::as_array);
    let number = |name: &str| properties.get(name).and_then(as_signed);
    Ok(Stream {
        table: table
            .context("Stream is not !GetAtt <table>.StreamArn")?
            .to_owned(),
        batch_size: number("BatchSize")
            .and_then(|size| usize::try_from(size).ok())
            .unwrap_or(100),
        batching_window_seconds: number("MaximumBatchingWindowInSeconds")
            .and_then(|seconds| u64::try_from(seconds).ok())
            .unwrap_or_default(),
        parallelization_factor: number("ParallelizationFactor")
            .and_then(|factor| usize::try_from(factor).ok())
            .unwrap_or(1),
        filters: patterns
            .collect::<Option<_>>()
            .context("a filter has no Pattern")?,
        starting_position: properties
            .get("StartingPosition")
            .and_then(Value::as_str)
            .context("StartingPosition is missing")?
            .to_owned(),
        report_batch_item_failures: types
            .is_some_and(|types| types.iter().any(|kind| kind == "ReportBatchItemFailures")),
        bisect_batch: properties.get("BisectBatchOnFunctionError") == Some(&Value::Bool(true)),
        maximum_retry_attempts: number("MaximumRetryAttempts")
            .and_then(|attempts| u32::try_from(attempts).ok()),
    })
}

// Parameters are strings even where they are numbers.
fn as_number(value: &Value) -> anyhow::Result<u64> {
    u64::try_from(as_signed(value).context("not a number")?).context("negative")
}

fn as_signed(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

#[cfg(test)]
mod tests;
