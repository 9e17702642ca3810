//! All functions of the template around one AWS, the fakes and a clock that a scene moves; and CloudWatch, which reads
//! what they write to standard output on Lambda, and counts what AWS counts of their calls.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::OnceLock;

use bridge::functions::{self, Wiring};
use jiff::{SignedDuration, Timestamp};
use metrics_cloudwatch_embedded::{Builder, Collector};
use serde_json::{Value, json};
use shared::webhook::signature::sign;
use testkit::house::{APP_SECRET, House};
use testkit::lambda::Handler;
use testkit::signer;
use testkit::template::{Deployment, Template};
use testkit::time::start;

use crate::cloudwatch::{Alarm, CloudWatch};

/// The collector of `telemetry::init`, which writes elsewhere here.
fn collector(house: &House) -> &'static Collector {
    static COLLECTOR: OnceLock<&Collector> = OnceLock::new();
    let namespace = house.environment("DispatchSyncFunction")["METRICS_NAMESPACE"].clone();
    COLLECTOR.get_or_init(|| Builder::new().cloudwatch_namespace(namespace).init().unwrap())
}

pub(crate) struct Stack {
    pub(crate) house: House,
    pub(crate) cloudwatch: CloudWatch,
    functions: BTreeMap<String, Handler>,
    collector: &'static Collector,
    requests: u32,
}

impl Stack {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    pub(crate) async fn with(settings: &[(&str, &str)]) -> Self {
        let house = House::with(settings).await.unwrap();
        let collector = collector(&house);
        let queues = house.aws.create_queues(house.template()).await.unwrap();
        let aws = house.aws.sdk_config();
        let mut made = BTreeMap::new();
        for function in house.template().functions() {
            let mut environment = house.environment(&function.logical_id);
            if let Some(url) = environment.get_mut("RELAY_QUEUE_URL") {
                url.clone_from(&queues["RelayQueue"]);
            }
            let wiring = Wiring {
                function,
                environment: &environment,
                aws: &aws,
                clock: &house.clock,
            };
            let handler = functions::make(&wiring).unwrap().unwrap();
            made.insert(function.logical_id.clone(), handler);
        }
        // What starting wrote down is nobody's.
        collector.flush(std::io::sink()).unwrap();
        Self {
            house,
            cloudwatch: CloudWatch::default(),
            functions: made,
            collector,
            requests: 0,
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.house.clock.now()
    }

    pub(crate) fn minutes_later(&self, minutes: i64) {
        self.house.later(SignedDuration::from_mins(minutes));
    }

    /// What AWS says of a resource of this stack, or the stack of a metric of its own.
    pub(crate) fn aws_reports(
        &mut self,
        namespace: &str,
        metric: &str,
        dimensions: &[(&str, &str)],
        value: f64,
    ) {
        let now = self.now();
        self.cloudwatch.put(now, namespace, metric, dimensions, value);
    }

    /// The same of a function.
    pub(crate) fn lambda_reports(&mut self, function: &str, metric: &str, value: f64) {
        let name = format!("local-{function}");
        self.aws_reports("AWS/Lambda", metric, &[("FunctionName", &name)], value);
    }

    /// Invokes a function as Lambda does: counts the call and its failure, and reads the metrics that it wrote.
    pub(crate) async fn invoke(&mut self, function: &str, event: Value) -> Option<Value> {
        self.lambda_reports(function, "Invocations", 1.0);
        let answer = self.functions[function](event).await.ok();
        if answer.is_none() {
            self.lambda_reports(function, "Errors", 1.0);
        }
        let mut written = Vec::new();
        self.collector.flush(&mut written).unwrap();
        let now = self.now();
        self.cloudwatch
            .read_log(now, &String::from_utf8(written).unwrap());
        answer
    }

    /// A request through the API, which counts what is answered with 5xx.
    pub(crate) async fn request(&mut self, function: &str, event: Value) -> u64 {
        let answer = self.invoke(function, event).await;
        // What crashed is a 500 of the gateway's.
        let status = answer.map_or(500, |answer| answer["statusCode"].as_u64().unwrap());
        if status >= 500 {
            self.aws_reports("AWS/ApiGateway", "5xx", &[("ApiId", "local-HttpApi")], 1.0);
        }
        status
    }

    /// A tick of both lanes.
    pub(crate) async fn tick(&mut self) {
        for function in ["DispatchSyncFunction", "DispatchRelayFunction"] {
            self.invoke(function, json!({"task": "due"})).await;
        }
    }

    /// The schedule, for so many minutes.
    pub(crate) async fn run(&mut self, minutes: u32) {
        for _ in 0..minutes {
            self.minutes_later(1);
            self.tick().await;
        }
    }

    pub(crate) async fn message(&mut self, psid: &str) -> u64 {
        self.requests += 1;
        let message = json!({"mid": format!("m_{}", self.requests), "text": "hi"});
        let event = self.house.act(testkit::house::PAGE, psid, "message", message);
        self.request("MessengerEventsFunction", event).await
    }

    /// Posts a body with Meta's signature, or a wrong one.
    pub(crate) async fn meta(&mut self, path: &str, body: &[u8], is_signed: bool) -> u64 {
        let secret = if is_signed { APP_SECRET } else { "another" };
        let signature = sign(&secret.into(), body);
        let event = signer::gateway_event(
            "POST",
            path,
            "",
            &[("x-hub-signature-256", &signature)],
            body,
            false,
        );
        let function = match path {
            "/fbe/webhook" => "FbeInstallWebhookFunction",
            _ => "MessengerEventsFunction",
        };
        self.request(function, event).await
    }

    /// Posts a body with a bearer token.
    pub(crate) async fn bearer(&mut self, function: &str, path: &str, token: &str, body: &Value) -> u64 {
        let token = format!("Bearer {token}");
        let headers = [
            ("authorization", token.as_str()),
            ("content-type", "application/json"),
        ];
        let body = body.to_string();
        let event = signer::gateway_event("POST", path, "", &headers, body.as_bytes(), false);
        self.request(function, event).await
    }

    /// The names of the alarms that have rung since the start.
    pub(crate) fn rung(&self) -> BTreeSet<String> {
        let rung = alarms().into_iter().filter(|alarm| self.rings(alarm).is_some());
        rung.map(|alarm| alarm.name).collect()
    }

    /// How long after the start an alarm first rang.
    pub(crate) fn rang_after(&self, name: &str) -> SignedDuration {
        let alarm = alarms().into_iter().find(|alarm| alarm.name == name).unwrap();
        self.rings(&alarm).unwrap().duration_since(start())
    }

    fn rings(&self, alarm: &Alarm) -> Option<Timestamp> {
        // What notices a silence looks at what has passed; the others at all that has come in, once its periods end.
        self.cloudwatch.rings(alarm, start(), self.now())
    }
}

/// Every alarm, also those that are there only if they are asked for.
pub(crate) fn alarms() -> Vec<Alarm> {
    let asked_for = Deployment {
        parameters: [("RelaySilentHours".to_owned(), "24".to_owned())].into(),
        ..Deployment::default()
    };
    let template = Template::parse_deployed(include_str!("../../../template.yaml"), &asked_for).unwrap();
    let alarms = template.properties_of("AWS::CloudWatch::Alarm").unwrap();
    alarms.values().map(Alarm::read).collect()
}
