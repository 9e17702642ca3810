use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use testkit::template::{Deployment, Template};

use crate::{code, read, table, template};

const ALARM: &str = "AWS::CloudWatch::Alarm";

/// The alarms by logical id, deployed as a stack called `local`.
fn alarms(template: &Template) -> BTreeMap<&str, Value> {
    template.properties_of(ALARM).unwrap()
}

/// An alarm's name without the stack's.
fn name(alarm: &Value) -> &str {
    alarm["AlarmName"]
        .as_str()
        .unwrap()
        .strip_prefix("local-")
        .unwrap()
}

/// The rows of a table of `Mappings`.
fn rows<'a>(template: &'a Template, table: &str) -> impl Iterator<Item = (&'a str, &'a Value)> {
    let rows = template.source()["Mappings"][table].as_object().unwrap();
    rows.iter().map(|(row, values)| (row.as_str(), values))
}

/// Numbers of a `Mappings` table are text.
fn number(value: &Value) -> u64 {
    value
        .as_u64()
        .unwrap_or_else(|| value.as_str().unwrap().parse().unwrap())
}

#[test]
fn every_row_of_an_alarm_table_makes_its_alarms() {
    let template = template();
    let alarms = alarms(&template);
    let mut missing = Vec::new();
    for (table, kinds) in [
        ("FunctionAlarms", ["Errors", "Throttles", "Duration"].as_slice()),
        ("TableAlarms", &["Throttles"]),
        ("QueueAlarms", &[""]),
        ("MetricAlarms", &[""]),
    ] {
        for (row, values) in rows(&template, table) {
            for kind in kinds {
                let id = format!("{row}{kind}Alarm");
                let named = alarms
                    .get(id.as_str())
                    .is_some_and(|alarm| name(alarm).starts_with(values["Name"].as_str().unwrap()));
                if !named {
                    missing.push(id);
                }
            }
        }
    }
    assert!(missing.is_empty(), "not in the list of a loop: {missing:?}");
}

#[test]
fn every_function_has_its_alarms_and_is_rolled_back_by_its_own() {
    let template = template();
    let alarms = alarms(&template);
    let table: BTreeMap<_, _> = rows(&template, "FunctionAlarms").collect();
    for function in template.functions() {
        let id = &function.logical_id;
        let short = id.strip_suffix("Function").unwrap();
        for kind in ["Errors", "Throttles", "Duration"] {
            let alarm = &alarms[format!("{short}{kind}Alarm").as_str()];
            let watched = &alarm["Dimensions"][0]["Value"];
            assert_eq!(watched, &Value::from(format!("local-{id}")), "{short}{kind}Alarm");
        }
        let row = table[short];
        assert_eq!(number(&row["Timeout"]), function.timeout_seconds, "{short}");
        assert!(
            number(&row["SlowMilliseconds"]) < function.timeout_seconds * 1_000,
            "{short}"
        );
        let canary = &template.source()["Resources"][id]["Properties"]["DeploymentPreference"]["Alarms"];
        assert_eq!(
            canary,
            &serde_json::json!([{ "Ref": format!("{short}ErrorsAlarm") }]),
            "{short}"
        );
    }
}

/// The metrics that the functions write, and those that CloudWatch counts in the access log.
fn metrics(template: &Template) -> BTreeSet<String> {
    let source = read("shared/src/telemetry.rs");
    let written = source.lines().filter_map(|line| {
        let (_, value) = line.strip_prefix("pub const ")?.split_once(": &str = \"")?;
        Some(value.trim_end_matches("\";").to_owned())
    });
    let counted = template.properties_of("AWS::Logs::MetricFilter").unwrap();
    let counted = counted.values().map(|filter| {
        let name = filter["MetricTransformations"][0]["MetricName"].as_str();
        name.unwrap().to_owned()
    });
    written.chain(counted).collect()
}

#[test]
fn an_alarm_on_a_business_metric_watches_one_that_is_written() {
    let template = template();
    let metrics = metrics(&template);
    for (id, alarm) in alarms(&template) {
        if alarm["Namespace"] == "MetaBrazeBridge/local" {
            let metric = alarm["MetricName"].as_str().unwrap();
            assert!(metrics.contains(metric), "{id} watches {metric}");
        }
    }
}

/// `<function>` stands for every function's name, `*` for any part of a name.
fn matches(pattern: &str, alarm: &str) -> bool {
    match pattern.replace("<function>", "*").split_once('*') {
        Some((start, end)) => {
            alarm.len() >= start.len() + end.len() && alarm.starts_with(start) && alarm.ends_with(end)
        }
        None => pattern == alarm,
    }
}

#[test]
fn operators_find_every_alarm_in_the_documents() {
    // One alarm is there only if it is asked for.
    let asked_for = Deployment {
        parameters: [("RelaySilentHours".to_owned(), "24".to_owned())].into(),
        ..Deployment::default()
    };
    let template = Template::parse_deployed(&read("template.yaml"), &asked_for).unwrap();
    let alarms = alarms(&template);
    let names: Vec<&str> = alarms.values().map(name).collect();
    let rows = table("docs/operations.md", "alarm");
    let patterns: Vec<&str> = rows.iter().flat_map(|row| code(&row[0])).collect();
    for name in &names {
        assert!(
            patterns.iter().any(|pattern| matches(pattern, name)),
            "{name} is not there"
        );
    }
    for pattern in &patterns {
        assert!(
            names.iter().any(|name| matches(pattern, name)),
            "{pattern} is no alarm"
        );
    }
    // $0.10 a month each; of those that are there without being asked for.
    let usual = self::template();
    let count = self::alarms(&usual).len();
    let cost = format!("{count} alarms ${}.{}0", count / 10, count % 10);
    assert!(
        read("docs/operations.md").contains(&cost),
        "the costs do not say: {cost}"
    );
    // $0.30 a month each.
    let count = metrics(&usual).len();
    let cost = format!("up to {count} metrics ${}.{}0", count * 3 / 10, count * 3 % 10);
    assert!(
        read("docs/operations.md").contains(&cost),
        "the costs do not say: {cost}"
    );
}

/// What an alarm looks at, and when it rings, in a line.
fn when(alarm: &Value) -> String {
    let text = |name: &str| match alarm.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "-".to_owned(),
    };
    let [metric, statistic, extended, period, operator, threshold] = [
        "MetricName",
        "Statistic",
        "ExtendedStatistic",
        "Period",
        "ComparisonOperator",
        "Threshold",
    ]
    .map(text);
    let [needed, of, missing] = ["DatapointsToAlarm", "EvaluationPeriods", "TreatMissingData"].map(text);
    format!(
        "{}: {metric} {statistic} {extended} of {period} s {operator} {threshold}, {needed} of {of}, missing: {missing}",
        name(alarm)
    )
}

/// What is pinned here is what the rows of docs/operations.md say in words.
#[test]
fn alarms_ring_when_they_are_meant_to() {
    let asked_for = Deployment {
        parameters: [("RelaySilentHours".to_owned(), "24".to_owned())].into(),
        ..Deployment::default()
    };
    let template = Template::parse_deployed(&read("template.yaml"), &asked_for).unwrap();
    let alarms = alarms(&template);
    let mut lines: Vec<String> = alarms.values().map(when).collect();
    lines.sort();
    insta::assert_snapshot!(lines.join("\n"));
}

#[test]
fn every_alarm_tells_whoever_gave_an_address() {
    for (address, actions) in [("", None), ("on-call@example.com", Some(1))] {
        let deployment = Deployment {
            parameters: [
                ("AlarmEmail".to_owned(), address.to_owned()),
                ("RelaySilentHours".to_owned(), "24".to_owned()),
            ]
            .into(),
            ..Deployment::default()
        };
        let template = Template::parse_deployed(&read("template.yaml"), &deployment).unwrap();
        for (id, alarm) in alarms(&template) {
            assert_ne!(alarm.get("ActionsEnabled"), Some(&Value::from(false)), "{id}");
            for told in ["AlarmActions", "OKActions"] {
                let told = alarm.get(told).and_then(Value::as_array).map(Vec::len);
                assert_eq!(told, actions, "{id}");
            }
        }
        let topics = template.properties_of("AWS::SNS::Topic").unwrap();
        assert_eq!(topics.len(), actions.unwrap_or_default());
    }
}

#[test]
fn operators_find_every_metric_in_the_documents() {
    let rows = table("docs/operations.md", "metric");
    let documented: BTreeSet<String> = rows
        .iter()
        .flat_map(|row| code(&row[0]))
        .map(str::to_owned)
        .collect();
    assert_eq!(documented, metrics(&template()));
}

/// A new version of a function is published when its own environment changes; SAM does not look into `Globals` after
/// a parameter's value.
#[test]
fn no_parameter_stands_in_the_global_environment() {
    let template = template();
    let variables = &template.source()["Globals"]["Function"]["Environment"]["Variables"];
    let parameters = template.source()["Parameters"].as_object().unwrap();
    let text = variables.to_string();
    for parameter in parameters.keys() {
        for form in [format!("\"{parameter}\""), format!("${{{parameter}}}")] {
            assert!(!text.contains(&form), "{parameter}: move it into each function");
        }
    }
}
