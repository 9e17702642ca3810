//! As much of CloudWatch as an alarm needs: data points, statistics over periods, and what is made of missing ones.
//! (<https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/AlarmThatSendsEmail.html>)

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::Value;

pub(crate) type Dimensions = BTreeMap<String, String>;

/// A metric's value at a time.
#[derive(Debug, Clone)]
struct Point {
    at: Timestamp,
    namespace: String,
    metric: String,
    dimensions: Dimensions,
    value: f64,
}

/// All points that there are.
#[derive(Debug, Default)]
pub(crate) struct CloudWatch(Vec<Point>);

impl CloudWatch {
    pub(crate) fn put(
        &mut self,
        at: Timestamp,
        namespace: &str,
        metric: &str,
        dimensions: &[(&str, &str)],
        value: f64,
    ) {
        let dimensions = dimensions
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.0.push(Point {
            at,
            namespace: namespace.to_owned(),
            metric: metric.to_owned(),
            dimensions: dimensions.collect(),
            value,
        });
    }

    /// Takes log lines in the embedded metric format, as CloudWatch Logs does. A metric that a line does not declare, or
    /// for which it has no value, is none.
    pub(crate) fn read_log(&mut self, at: Timestamp, lines: &str) {
        for line in lines.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            for directive in line["_aws"]["CloudWatchMetrics"].as_array().unwrap() {
                assert_eq!(directive["Dimensions"], serde_json::json!([[]]), "{line}");
                for metric in directive["Metrics"].as_array().unwrap() {
                    let name = metric["Name"].as_str().unwrap();
                    let values = match &line[name] {
                        Value::Array(values) => values.clone(),
                        value => vec![value.clone()],
                    };
                    for value in values {
                        let namespace = directive["Namespace"].as_str().unwrap();
                        self.put(at, namespace, name, &[], value.as_f64().unwrap());
                    }
                }
            }
        }
    }

    /// When `alarm` first rings between these times, if it does.
    pub(crate) fn rings(&self, alarm: &Alarm, from: Timestamp, to: Timestamp) -> Option<Timestamp> {
        let period = alarm.period;
        // Periods are aligned, and one that has just ended counts.
        let first = from.as_second().div_euclid(period) * period + period;
        let mut end = first;
        while end <= to.as_second() + period {
            let window = end - alarm.evaluation_periods * period;
            let is_complete = window >= from.as_second() && end <= to.as_second();
            // Before the beginning nothing is known, which is no silence.
            if !alarm.missing_is_breaching || is_complete {
                let breaching = (0..alarm.evaluation_periods).filter(|back| {
                    let end = end - back * period;
                    match self.statistic(alarm, end - period, end) {
                        Some(value) => alarm.is_breached_by(value),
                        None => alarm.missing_is_breaching,
                    }
                });
                if breaching.count() >= alarm.breaching_needed {
                    return Timestamp::from_second(end).ok();
                }
            }
            end += period;
        }
        None
    }

    fn statistic(&self, alarm: &Alarm, from: i64, to: i64) -> Option<f64> {
        let points = self.0.iter().filter(|point| {
            (from..to).contains(&point.at.as_second())
                && point.namespace == alarm.namespace
                && point.metric == alarm.metric
                && point.dimensions == alarm.dimensions
        });
        let mut values: Vec<f64> = points.map(|point| point.value).collect();
        values.sort_by(f64::total_cmp);
        let last = values.last().copied()?;
        Some(match alarm.statistic.as_str() {
            "Sum" => values.iter().sum(),
            "Maximum" => last,
            "Minimum" => values[0],
            "p99" => values[(values.len() * 99).div_ceil(100) - 1],
            other => panic!("{other} is not known here"),
        })
    }
}

/// An alarm of the template.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// Without the stack's name.
    pub(crate) name: String,
    namespace: String,
    metric: String,
    dimensions: Dimensions,
    statistic: String,
    period: i64,
    comparison: String,
    threshold: f64,
    evaluation_periods: i64,
    breaching_needed: usize,
    missing_is_breaching: bool,
}

impl Alarm {
    pub(crate) fn read(properties: &Value) -> Self {
        let text = |name: &str| properties[name].as_str().map(str::to_owned);
        let number = |name: &str| match &properties[name] {
            Value::String(text) => text.parse().unwrap(),
            number => number.as_f64().unwrap(),
        };
        let whole = |name: &str| number(name) as i64;
        let dimensions = properties["Dimensions"].as_array().into_iter().flatten();
        let dimensions = dimensions.map(|dimension| {
            let text = |name: &str| dimension[name].as_str().unwrap().to_owned();
            (text("Name"), text("Value"))
        });
        let missing = text("TreatMissingData").unwrap();
        assert!(
            ["breaching", "notBreaching"].contains(&missing.as_str()),
            "{missing}"
        );
        Self {
            name: text("AlarmName")
                .unwrap()
                .strip_prefix("local-")
                .unwrap()
                .to_owned(),
            namespace: text("Namespace").unwrap(),
            metric: text("MetricName").unwrap(),
            dimensions: dimensions.collect(),
            statistic: text("Statistic").or_else(|| text("ExtendedStatistic")).unwrap(),
            period: whole("Period"),
            comparison: text("ComparisonOperator").unwrap(),
            threshold: number("Threshold"),
            evaluation_periods: whole("EvaluationPeriods"),
            breaching_needed: usize::try_from(whole("DatapointsToAlarm")).unwrap(),
            missing_is_breaching: missing == "breaching",
        }
    }

    fn is_breached_by(&self, value: f64) -> bool {
        match self.comparison.as_str() {
            "GreaterThanOrEqualToThreshold" => value >= self.threshold,
            "LessThanThreshold" => value < self.threshold,
            other => panic!("{other} is not known here"),
        }
    }
}
